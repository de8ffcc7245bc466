// The photo box: sends a photo that was dropped, pasted, taken or chosen, and keeps the one before until then.
const box = element.querySelector(".dd-photo");
const { largest, readable } = box.dataset;
const [frame, input, picture, layers, video, note, waiting] = [
  ".dd-photo-frame", "input", "img", ".dd-photo-layers", "video", ".dd-photo-note", ".dd-photo-waiting",
].map((name) => box.querySelector(name));
const button = (name) => box.querySelector(`[data-do=${name}]`);
const STILL_THERE = "Any result here is still that of the photo before.";

const STEPS = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] };

const ZOOMS = [1, 1.5, 2, 3, 4];

let turn = 0;
// What was chosen, for a part of it to be cut out.
let chosen = null;
let zoom = 1;
// What stays where it is when the photo is enlarged, in percent of the frame.
let middle = [50, 50];
let camera = null;
// Of the photo on the page, as it is until the server has decoded it.
let local = "";

const say = (text, isFailure = false) => {
  const line = document.createElement("p");
  line.className = isFailure ? "dd-failure" : "dd-quiet";
  line.textContent = text;
  note.replaceChildren(...(text ? [line] : []));
};

const showPicture = (address) => {
  if (local && local !== address) URL.revokeObjectURL(local);
  local = address.startsWith("blob:") ? address : "";
  if (address) picture.src = address;
  else picture.removeAttribute("src");
};

const state = (name) => {
  box.dataset.state = name;
  // What had the focus may be hidden now.
  if (document.activeElement?.matches("[data-do]") && !document.activeElement.checkVisibility())
    button(name === "camera" ? "take" : "choose").focus();
};

// On a phone the answer comes below the photo, and what was pressed may be far from both.
const bringIntoView = () => {
  if (!matchMedia("(max-width: 767px)").matches) return;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  box.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
};

// The photo and the heatmap over it, alike.
const enlarge = (times, at = [50, 50]) => {
  [zoom, middle] = [times, at.map((place) => Math.min(Math.max(place, 0), 100))];
  frame.style.setProperty("--dd-zoom", zoom);
  frame.toggleAttribute("data-enlarged", zoom > 1);
  frame.style.setProperty("--dd-middle", middle.map((place) => `${place}%`).join(" "));
};

// The part of the photo that is in sight while it is enlarged, as a file.
const cutOut = async () => {
  // A kind that the browser can't open is cut out of the picture that is shown.
  const image = (chosen && (await createImageBitmap(chosen).catch(() => null))) ?? (await createImageBitmap(picture));
  const fitted = Math.min(frame.clientWidth / image.width, frame.clientHeight / image.height);
  // From the frame to the photo in it, along one side.
  const span = (side, frameSide, at) => {
    const margin = (frameSide - side * fitted) / 2;
    const start = (at / 100) * frameSide * (1 - 1 / zoom);
    const [low, high] = [start, start + frameSide / zoom].map((place) => (place - margin) / fitted);
    return [Math.max(0, Math.round(low)), Math.min(side, Math.round(high))];
  };
  const [left, right] = span(image.width, frame.clientWidth, middle[0]);
  const [top, bottom] = span(image.height, frame.clientHeight, middle[1]);
  const canvas = new OffscreenCanvas(Math.max(right - left, 1), Math.max(bottom - top, 1));
  canvas.getContext("2d").drawImage(image, -left, -top);
  const name = (chosen?.name ?? "photo").replace(/\.[^.]*$/, "");
  return new File([await canvas.convertToBlob({ type: "image/png" })], `${name} (part).png`, { type: "image/png" });
};

const closeCamera = () => {
  camera?.getTracks().forEach((track) => track.stop());
  camera = video.srcObject = null;
};

// The value is a record of a file: of an upload until it is read, then of the decoded picture.
const settle = () => state(props.value ? "photo" : "empty");

const send = async (file, remark = "") => {
  const mine = ++turn;
  closeCamera();
  settle();
  if (file.size > largest)
    return say(
      `“${file.name}” has ${Math.round(file.size / 1e6)} MB and was not sent. Photos of up to ${readable} MB are ` +
        `read: save it smaller, then choose it again. ${STILL_THERE}`,
      true,
    );
  say(`Sending “${file.name}” …`);
  let sent;
  try {
    sent = await upload(file);
  } catch {
    if (mine === turn)
      say(`“${file.name}” could not be sent. Check the connection, then choose it again. ${STILL_THERE}`, true);
    return;
  }
  if (mine !== turn) return;
  say(remark);
  // The heatmap of the photo before.
  layers.replaceChildren();
  enlarge(1);
  chosen = file;
  showPicture(URL.createObjectURL(file));
  waiting.textContent = `Reading “${file.name}” …`;
  state("photo");
  props.value = {
    path: sent.path,
    url: sent.url,
    orig_name: file.name,
    size: file.size,
    mime_type: file.type,
    meta: { _type: "gradio.FileData" },
  };
  trigger("upload");
  bringIntoView();
};

const take = (files, isFolder = false) => {
  if (isFolder) return say("That is a folder. The tab Batch evaluation reads many photos at once.", true);
  if (!files.length) return;
  const others =
    `${files.length} files came at once. Only “${files[0].name}” is read here. ` +
    "The tab Batch evaluation reads many photos.";
  send(files[0], files.length > 1 ? others : "");
};

const actions = {
  choose: () => input.click(),
  zoom: () => enlarge(ZOOMS[(ZOOMS.indexOf(zoom) + 1) % ZOOMS.length], middle),
  part: async () => send(await cutOut()),
  full: () => (document.fullscreenElement ? document.exitFullscreen() : frame.requestFullscreen()),
  remove: () => {
    turn++;
    enlarge(1);
    layers.replaceChildren();
    say("");
    props.value = null;
    showPicture("");
    settle();
    trigger("clear");
  },
  camera: async () => {
    // A phone's own camera app takes the better photo.
    if (matchMedia("(pointer: coarse)").matches) {
      input.capture = "environment";
      input.click();
      input.removeAttribute("capture");
      return;
    }
    try {
      camera = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "environment", width: { ideal: 1920 }, height: { ideal: 1440 } },
      });
      video.srcObject = camera;
      await video.play();
    } catch {
      closeCamera();
      return say("The camera can't be used. Connect one, and allow this page to use it.", true);
    }
    say("");
    state("camera");
  },
  take: () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => send(new File([blob], "camera.png", { type: blob.type })));
  },
  cancel: () => {
    closeCamera();
    settle();
  },
  paste: async () => {
    try {
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((name) => name.startsWith("image/"));
        if (type) return send(new File([await item.getType(type)], `pasted.${type.slice(6)}`, { type }));
      }
      say("No image was copied. Copy an image, then press Paste. For a copied file, press Ctrl+V.", true);
    } catch {
      say("The browser does not let this page read what was copied. Press Ctrl+V in place of the button.", true);
    }
  },
};

box.addEventListener("click", (event) => actions[event.target.closest("[data-do]")?.dataset.do]?.());
input.addEventListener("change", () => {
  take([...input.files]);
  // So that the same file can be chosen again.
  input.value = "";
});
frame.addEventListener("pointermove", (event) => {
  if (zoom === 1) return;
  const { left, top, width, height } = frame.getBoundingClientRect();
  enlarge(zoom, [((event.clientX - left) / width) * 100, ((event.clientY - top) / height) * 100]);
});
button("zoom").addEventListener("keydown", (event) => {
  const step = STEPS[event.key];
  if (!step || zoom === 1) return;
  event.preventDefault();
  enlarge(zoom, middle.map((place, axis) => place + step[axis]));
});
// Dropped or pasted anywhere on the page; see shell.js.
box.addEventListener("files", ({ detail }) => take(detail.files, detail.entries.some((entry) => entry.isDirectory)));
// A kind that the browser can't show is seen once the server has decoded it.
picture.addEventListener("error", () => picture.removeAttribute("src"));
watch("value", () => {
  const isOurs = Boolean(local);
  // An example, or no photo.
  if (!isOurs) chosen = null;
  showPicture(props.value?.url ?? "");
  if (!camera) settle();
  if (props.value && !isOurs) bringIntoView();
});
