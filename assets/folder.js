// Hands files from anywhere on the page, and a folder, chosen or dropped, to the box of files. Gradio keeps only the
// bare names of files, so each file of a folder gets its whole path as its name, with a mark for every slash.
const { box, start, mark, most, bytes, largest, kinds } = element.querySelector(".dd-folder").dataset;
const [button, input, note] = ["button", "input", "p"].map((tag) => element.querySelector(tag));
const hint = note.textContent;
const BUSY = "Other files are still being sent.";
const MADE_BY_SYSTEMS = ["__macosx", "thumbs.db", "desktop.ini"];

const say = (text, isFailure = false) => {
  note.textContent = text;
  note.className = isFailure ? "dd-failure" : "dd-quiet";
};

const number = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

const isHidden = (path) =>
  path.split("/").some((part) => part.startsWith(".") || MADE_BY_SYSTEMS.includes(part.toLowerCase()));

const isKnown = (file) =>
  file.type.startsWith("image/") || kinds.split(" ").some((kind) => file.name.toLowerCase().endsWith(kind));

const refusal = (taken) => {
  if (!taken.length) return "There is no image and no table in that folder. Choose another one.";
  if (taken.length > most)
    return `That folder has ${number(taken.length, "image")}; at most ${number(+most, "image")} are read at once. ` +
      "Nothing was sent. Choose a folder inside it.";
  const size = taken.reduce((sum, [, file]) => sum + file.size, 0);
  if (size > bytes)
    return `That folder has ${(size / 1e9).toFixed(1)} GB of images; at most ${bytes / 1e9} GB are read at once. ` +
      "Nothing was sent. Choose a folder inside it.";
  return "";
};

const send = (files) => {
  // There is none while the box is still sending something.
  const picker = document.querySelector(`#${box} input[type=file]`);
  if (!picker) return false;
  const transfer = new DataTransfer();
  for (const file of files) transfer.items.add(file);
  picker.files = transfer.files;
  picker.dispatchEvent(new Event("change"));
  return true;
};

const hand = (found) => {
  const seen = found.filter(([path]) => !isHidden(path));
  const taken = seen.filter(([, file]) => isKnown(file) && file.size <= largest);
  const why = found.length > 4 * most
    ? "That folder has too many files to look through. Nothing was sent. Choose a folder inside it."
    : refusal(taken);
  if (why) return say(why, true);
  const named = taken
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([path, file]) => new File([file], path.replaceAll(mark, "").replaceAll("/", mark), { type: file.type }));
  if (!send(named)) return say(`${BUSY} Choose the folder again when they are there.`, true);
  const others = seen.length - taken.length;
  const left = others ? ` Left out, as no image or table, or as too large: ${number(others, "file")}.` : "";
  say(`Taken from the folder: ${number(taken.length, "file")}.${left}`);
};

const filesOf = async (entry, found) => {
  // A whole disk would never end.
  if (found.length > 4 * most || isHidden(entry.name)) return;
  if (entry.isFile) {
    found.push([entry.fullPath.slice(1), await new Promise((give, fail) => entry.file(give, fail))]);
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const some = await new Promise((give, fail) => reader.readEntries(give, fail));
    if (!some.length) return;
    for (const inner of some) await filesOf(inner, found);
  }
};

const take = async ({ files, entries }) => {
  if (!entries.some((entry) => entry.isDirectory)) {
    say(hint);
    if (files.length && !send(files)) say(`${BUSY} Add the others when they are there.`, true);
    return;
  }
  say("Looking through the folder …");
  try {
    const found = [];
    for (const entry of entries) await filesOf(entry, found);
    hand(found);
  } catch {
    say("That folder can't be read. Choose it with the button, or pack it into a ZIP.", true);
  }
};

// Phones that know no folders.
element.hidden = !("webkitdirectory" in input);
button.addEventListener("click", () => input.click());
input.addEventListener("change", () => {
  hand([...input.files].map((file) => [file.webkitRelativePath || file.name, file]));
  // So that the same folder can be chosen again.
  input.value = "";
});
// Dropped or pasted anywhere on the page; see shell.js.
element.querySelector(".dd-folder").addEventListener("files", ({ detail }) => take(detail));
document.addEventListener("click", (event) => event.target.closest?.(`#${start}`) && say(hint));
