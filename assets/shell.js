// What Gradio's tab bars lack: arrow keys, and for the main one an address of every tab (/#batch), so that Back goes to
// the tab before. Names that its tables and choices lack. And files that are dropped or pasted anywhere on the page go
// to the input of the open tab.
() => {
  const MAIN = "#tabs > .tab-wrapper [role=tab]";
  const tabsOf = (bar) => [...bar.querySelectorAll("[role=tab]")];
  const main = () => [...document.querySelectorAll(MAIN)];

  let shown = "";
  // Of the address: a task that is still to be chosen.
  let awaited = null;

  // The address of a tab may name a task that is not the first: /#batch,multiclass.
  const wanted = () => location.hash.slice(1).split(",");
  const TASKS = { single: "task", batch: "batch-task", comparison: "compare-task" };
  const taskOf = (key) => [...document.querySelectorAll(`#${TASKS[key]} input`)];

  const follow = () => {
    const [key, task] = wanted();
    main().find((tab, at) => (key ? tab.dataset.tabId === key : at === 0))?.click();
    awaited = task ? { key, task } : null;
    chooseTask();
  };

  // A tab is made when it is first opened.
  const chooseTask = () => {
    const choice = awaited && taskOf(awaited.key).find((input) => input.value === awaited.task);
    if (!choice) return;
    awaited = null;
    if (!choice.checked) choice.click();
  };

  const noteTask = (event) => {
    const key = Object.keys(TASKS).find((name) => event.target.closest?.(`#${TASKS[name]}`));
    if (!key) return;
    const task = taskOf(key)[0] === event.target ? "" : `,${event.target.value}`;
    history.replaceState(null, "", `${location.pathname}${location.search}#${key}${task}`);
  };

  const settle = () => {
    // A tab bar is one stop of the tab key.
    for (const tab of document.querySelectorAll("#tabs [role=tab]"))
      tab.tabIndex = tab.getAttribute("aria-selected") === "true" ? 0 : -1;
    // The search field of Gradio's tables has no name.
    for (const field of document.querySelectorAll("#tabs input.search-input:not([aria-label])"))
      field.setAttribute("aria-label", "Search in the table");
    // Nor have its groups of choices.
    for (const group of document.querySelectorAll("#tabs fieldset:not([aria-label])")) {
      const title = group.querySelector("[data-testid=block-info]")?.textContent.trim();
      if (title) group.setAttribute("aria-label", title);
    }
    chooseTask();
    const chosen = main().find((tab) => tab.tabIndex === 0);
    if (!chosen || chosen.dataset.tabId === shown) return;
    shown = chosen.dataset.tabId;
    // Back and links change the address first, and the plain address is that of the first tab.
    const address = wanted()[0] || main()[0].dataset.tabId;
    if (address !== shown) history.pushState(null, "", location.pathname + location.search + "#" + shown);
  };

  const walk = (event) => {
    const bar = event.target.closest?.("#tabs [role=tablist]");
    if (!bar || event.ctrlKey || event.altKey || event.metaKey) return;
    const tabs = tabsOf(bar);
    const at = tabs.indexOf(event.target);
    const steps = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: -1 };
    if (at < 0 || !(event.key in steps)) return;
    event.preventDefault();
    const next = tabs.at(steps[event.key] % tabs.length);
    next.focus();
    next.click();
  };

  // Gradio's <base> makes a link within the page load it anew where the address has a query, and the result is lost.
  const stay = (event) => {
    const link = event.target.closest?.("a[href^='#']");
    if (!link) return;
    const key = link.getAttribute("href").slice(1);
    if (main().some((tab) => tab.dataset.tabId === key)) {
      event.preventDefault();
      location.hash = key;
      return;
    }
    const goal = link.matches(".dd-skip")
      ? [...document.querySelectorAll("#tabs > [role=tabpanel]")].find((panel) => panel.checkVisibility())
      : document.getElementById(key);
    if (!goal) return;
    event.preventDefault();
    if (goal.matches("details")) goal.open = true;
    goal.tabIndex = -1;
    goal.focus();
    goal.scrollIntoView();
  };

  // An input that takes files has the attribute, with the id of what to mark while something is held over the page, and
  // gets an event “files”.
  const openInput = () =>
    [...document.querySelectorAll("[data-takes-files]")].find((input) => input.checkVisibility());

  const give = (files, entries) =>
    openInput()?.dispatchEvent(new CustomEvent("files", { detail: { files, entries } }));

  const mark = (isHeld) => {
    for (const marked of document.querySelectorAll(".dd-held-over")) marked.classList.remove("dd-held-over");
    const input = isHeld && openInput();
    if (input) document.getElementById(input.dataset.takesFiles).classList.add("dd-held-over");
  };

  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");

  const hold = (event) => {
    if (!hasFiles(event)) return;
    // Without this the browser would leave the page and open the file.
    event.preventDefault();
    mark(true);
  };

  const drop = (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    mark(false);
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    // Gradio's boxes take files by themselves, but take a folder for a file.
    const isTheirs = event.target.closest?.(".upload-container:not(.icon-mode)");
    if (isTheirs && !entries.some((entry) => entry.isDirectory)) return;
    event.stopImmediatePropagation();
    // One without files, so that the box takes away the frame that it shows while something is held over it.
    if (isTheirs) event.target.dispatchEvent(new Event("drop", { bubbles: true, cancelable: true }));
    give([...event.dataTransfer.files], entries);
  };

  const TEXT_FIELD = "textarea, [contenteditable=true], input:not([type=radio], [type=checkbox], [type=range], [type=file])";

  const paste = (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    if (!files.length || event.target.closest?.(TEXT_FIELD)) return;
    event.preventDefault();
    give(files, []);
  };

  const start = () => {
    if (!main().length) return false;
    const all = document.querySelector("#tabs");
    all.querySelector("[role=tablist]").setAttribute("aria-label", "Sections of the app");
    all.addEventListener("keydown", walk);
    document.addEventListener("click", stay);
    all.addEventListener("change", noteTask);
    shown = main().find((tab) => tab.getAttribute("aria-selected") === "true")?.dataset.tabId;
    settle();
    follow();
    new MutationObserver(settle).observe(all, {
      subtree: true,
      childList: true,
      attributeFilter: ["aria-selected"],
    });
    window.addEventListener("hashchange", follow);
    // Captured before Gradio sees them.
    window.addEventListener("dragover", hold, true);
    window.addEventListener("dragleave", (event) => event.relatedTarget ?? mark(false), true);
    window.addEventListener("drop", drop, true);
    window.addEventListener("paste", paste, true);
    return true;
  };

  if (start()) return;
  const waiting = new MutationObserver(() => start() && waiting.disconnect());
  waiting.observe(document.body, { childList: true, subtree: true });
};
