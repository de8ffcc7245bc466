// The large view of a picture: what the server sends is shown in a dialog, whose buttons ask for the picture before or
// after it. The gallery's buttons have `data-pick="open …"`, and ask by themselves.
const dialog = document.createElement("dialog");
dialog.className = "dd-viewer";
dialog.setAttribute("aria-label", "Picture");
element.after(dialog);
// A picture that comes after the dialog was closed must not open it again.
let isAwaited = false;
let step = "";

// Reads the shown picture in the first tab, as if it was dropped there.
const read = async () => {
  const picture = dialog.querySelector("img");
  const name = picture.alt.split(":")[0].split("/").pop();
  const file = new File([await (await fetch(picture.src)).blob()], name, { type: picture.src.slice(5).split(";")[0] });
  dialog.close();
  location.hash = "single";
  document.querySelector("#photo [data-takes-files]").dispatchEvent(
    new CustomEvent("files", { detail: { files: [file], entries: [] } }),
  );
};

dialog.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.read !== undefined) return read();
  // Outside of what it shows, the dialog itself is clicked.
  if (event.target === dialog || button?.dataset.close !== undefined) return dialog.close();
  if (!button?.dataset.pick) return;
  step = button.dataset.step;
  trigger("select", { pick: button.dataset.pick });
});
dialog.addEventListener("keydown", (event) => {
  const key = { ArrowLeft: "previous", ArrowRight: "next" }[event.key];
  if (key) dialog.querySelector(`[data-step=${key}]:enabled`)?.click();
});
dialog.addEventListener("close", () => {
  isAwaited = false;
  step = "";
});
document.addEventListener("click", (event) => {
  if (event.target.closest?.('[data-pick^="open "]')) isAwaited = true;
});
watch("value", () => {
  const shown = element.querySelector(".dd-viewed");
  if (!shown || !isAwaited) return;
  dialog.replaceChildren(...[...shown.children].map((child) => child.cloneNode(true)));
  if (!dialog.open) dialog.showModal();
  // The buttons are new: the keyboard stays on the one that was pressed, where it can be pressed again.
  (dialog.querySelector(`[data-step=${step || "next"}]:enabled`) ?? dialog.querySelector("[data-close]")).focus();
});
