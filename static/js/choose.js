// Choosing rows: `data-choose` on a form with checkboxes. What is chosen stays chosen when the rows
// are replaced; the count is said, and `data-chosen-exactly` disables what needs another number.
(() => {
  let chosen = new Set();

  const find = (selector) => [...document.querySelectorAll(`[data-choose] ${selector}`)];
  const boxes = () => find('input[type="checkbox"]');

  function show() {
    const number = chosen.size;
    for (const count of find("[data-chosen-count]")) {
      const words = number ? `${number} chosen` : count.dataset.chosenCount;
      if (count.textContent !== words) count.textContent = words;
    }
    for (const button of find("[data-chosen-exactly]")) {
      const needed = button.dataset.chosenExactly;
      button.disabled = needed ? number !== Number(needed) : !number;
    }
  }

  function read() {
    chosen = new Set(boxes().filter((box) => box.checked).map((box) => box.value));
    show();
  }

  // new rows: those that are still here stay chosen
  function restore() {
    for (const box of boxes()) box.checked ||= chosen.has(box.value);
    read();
  }

  document.addEventListener("change", (event) => {
    if (event.target.closest("[data-choose]")) read();
  });
  document.addEventListener("htmx:afterSwap", restore);
  document.addEventListener("htmx:historyRestore", restore);
  window.addEventListener("pageshow", read); // after going back, as the browser restored it
  read();
})();
