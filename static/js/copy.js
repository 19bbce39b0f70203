// `data-copy="text"`: a click copies the text; the element shows “Copied” for a moment.
(() => {
  const SHOWN_MS = 1600;
  const busy = new WeakSet();

  async function copy(element) {
    if (busy.has(element)) return;
    const words = element.innerHTML;
    try {
      await navigator.clipboard.writeText(element.dataset.copy);
    } catch {
      getSelection().selectAllChildren(element); // no permission: one Ctrl+C away
      return;
    }
    busy.add(element);
    const width = element.getBoundingClientRect().width;
    element.style.setProperty("min-width", `${width}px`);
    element.textContent = "Copied";
    element.setAttribute("aria-live", "polite");
    setTimeout(() => {
      element.innerHTML = words;
      element.style.removeProperty("min-width");
      busy.delete(element);
    }, SHOWN_MS);
  }

  document.addEventListener("click", (event) => {
    const element = event.target.closest?.("[data-copy]");
    if (element) copy(element);
  });
})();
