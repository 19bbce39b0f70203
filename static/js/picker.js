// The picker of adapters: arrow keys walk between its search and its choices, Enter in the search adds the first one that
// it found. Closing it gives the focus back to its button, as popovers do; where that is gone, the focus stays near.
(() => {
  const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
  const choices = (picker) => [...picker.querySelectorAll("button[name=add]")].filter((choice) => choice.checkVisibility());

  function walk(event, picker) {
    const search = picker.querySelector("[data-find]");
    const isSearch = event.target === search;
    if (!STEPS[event.key] || (isSearch && event.key !== "ArrowDown")) return;
    const stops = [search, ...choices(picker)];
    const at = stops.indexOf(event.target);
    if (at < 0) return; // the version of a choice
    event.preventDefault();
    stops[Math.min(stops.length - 1, at + STEPS[event.key])].focus();
  }

  function addFound(event, picker) {
    const words = event.target.value.trim();
    const shown = picker.querySelector("[data-words]")?.dataset.words;
    if (words && shown !== words) return; // it is searched first
    event.preventDefault();
    if (words) choices(picker)[0]?.click();
  }

  // not in the page itself: without scripts the picker is always open, and the page would begin there
  document.addEventListener("beforetoggle", (event) => {
    if (event.newState === "open" && event.target.matches?.("[data-picker]")) event.target.querySelector("[data-find]").autofocus = true;
  }, true);

  document.addEventListener("keydown", (event) => {
    const picker = event.target.closest?.("[data-picker]");
    if (!picker) return;
    if (event.key === "Enter" && event.target.matches("[data-find]")) addFound(event, picker);
    else walk(event, picker);
  }, true);

  document.addEventListener("htmx:afterSwap", (event) => {
    // new choices, while one of the old ones had the focus
    if (event.target.id !== "add-choices" || document.activeElement !== document.body) return;
    event.target.closest("[data-picker]").querySelector("[data-find]").focus();
  });

  document.addEventListener("htmx:afterSettle", (event) => {
    // an adapter was added or removed, and what had the focus went with it
    if (event.detail.target?.id !== "stack" || document.activeElement !== document.body) return;
    const stops = document.querySelectorAll("#stack > .adapter-row > .adapter-weight [data-weight-slider], #add-adapter");
    stops[stops.length - 1]?.focus();
  });

  document.addEventListener("click", (event) => {
    event.target.closest?.("[data-picker] button[name=add]")?.closest("[data-picker]").hidePopover();
  });
})();
