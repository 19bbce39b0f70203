// Choosing rows: `data-choose` around checkboxes. What is chosen stays chosen when the rows are replaced; the count is
// said, and `data-chosen-exactly` disables what needs another number. Shift chooses all between two clicks; with
// `data-choose="keys"`, Ctrl+A chooses all and Escape none.
let chosen = new Set();
let last = null; // the value of the box that was clicked last

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

function check(some, checked) {
  for (const box of some) box.checked = checked;
  read();
}

window.brushwork.on("change", "[data-choose]", read);
document.addEventListener("click", (event) => {
  const all = boxes();
  const at = all.indexOf(event.target);
  if (at < 0) return;
  const from = all.findIndex((box) => box.value === last);
  if (event.shiftKey && from >= 0) check(all.slice(Math.min(from, at), Math.max(from, at) + 1), all[at].checked);
  last = all[at].value;
});
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
  if (event.defaultPrevented || isTyping || !document.querySelector('[data-choose="keys"]')) return;
  const isAll = event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
  if (isAll) event.preventDefault();
  if (isAll || (event.key === "Escape" && chosen.size)) check(boxes(), isAll);
});
document.addEventListener("htmx:afterSwap", restore);
document.addEventListener("htmx:historyRestore", restore);
window.addEventListener("pageshow", read); // after going back, as the browser restored it
read();
