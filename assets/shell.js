// What Gradio's tab bars lack: arrow keys, and for the main one an address of every tab (/#batch). And a name that its
// tables lack.
() => {
  const MAIN = "#tabs > .tab-wrapper [role=tab]";
  const tabsOf = (bar) => [...bar.querySelectorAll("[role=tab]")];
  const main = () => [...document.querySelectorAll(MAIN)];

  let shown = "";

  const follow = () => {
    const key = location.hash.slice(1);
    main().find((tab, at) => (key ? tab.dataset.tabId === key : at === 0))?.click();
  };

  const settle = () => {
    // A tab bar is one stop of the tab key.
    for (const tab of document.querySelectorAll("#tabs [role=tab]"))
      tab.tabIndex = tab.getAttribute("aria-selected") === "true" ? 0 : -1;
    // The search field of Gradio's tables has no name.
    for (const field of document.querySelectorAll("#tabs input.search-input:not([aria-label])"))
      field.setAttribute("aria-label", "Search in the table");
    const first = main()[0];
    const chosen = main().find((tab) => tab.tabIndex === 0);
    if (!chosen || chosen.dataset.tabId === shown) return;
    shown = chosen.dataset.tabId;
    // The tab that the page opens with keeps the plain address.
    if (location.hash || chosen !== first)
      history.replaceState(null, "", location.pathname + location.search + "#" + shown);
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

  // Gradio's <base> makes a link to a tab load the page anew where the address has a query, and the result is lost.
  const stay = (event) => {
    const link = event.target.closest?.(".dd-header a[href^='#']");
    if (!link) return;
    event.preventDefault();
    location.hash = link.getAttribute("href");
  };

  const start = () => {
    if (!main().length) return false;
    const all = document.querySelector("#tabs");
    all.querySelector("[role=tablist]").setAttribute("aria-label", "Parts of the app");
    all.addEventListener("keydown", walk);
    document.addEventListener("click", stay);
    shown = main().find((tab) => tab.getAttribute("aria-selected") === "true")?.dataset.tabId;
    settle();
    follow();
    new MutationObserver(settle).observe(all, {
      subtree: true,
      childList: true,
      attributeFilter: ["aria-selected"],
    });
    window.addEventListener("hashchange", follow);
    return true;
  };

  if (start()) return;
  const waiting = new MutationObserver(() => start() && waiting.disconnect());
  waiting.observe(document.body, { childList: true, subtree: true });
};
