// Keyboard shortcuts: `data-shortcut` elements are clicked, or focused if they are fields:
// "?", "/", "g d" (one after the other) or "Ctrl+Enter" (works while typing, too). Enter in a field with `data-enter` clicks
// the button of that id, in place of the first one of its form.
const OFF = "single-keys-off";
const SEQUENCE_MS = 1000;
let first = "";
let firstAt = 0;

const CHOSEN = "[type=radio], [type=checkbox]"; // letters mean nothing there
const isField = (element) => element?.matches?.(`input:not(${CHOSEN}), textarea, select, [contenteditable]`);
const isOff = () => localStorage.getItem(OFF) === "1";

// all details that an element is in
function openAround(element) {
  for (let box = element.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
}

function use(shortcut) {
  for (const element of document.querySelectorAll("[data-shortcut]")) {
    if (element.dataset.shortcut !== shortcut || element.disabled) continue;
    if (isField(element)) {
      openAround(element);
      element.focus();
    }
    else element.click();
    return true;
  }
  return false;
}

document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.defaultPrevented) return;
  const button = event.key === "Enter" && document.getElementById(event.target.dataset?.enter);
  if (button) {
    event.preventDefault();
    return button.click();
  }
  if (event.ctrlKey || event.metaKey) {
    if (event.key === "Enter" && use("Ctrl+Enter")) event.preventDefault();
    return;
  }
  if (event.altKey || event.key === "Shift" || isField(event.target) || isOff()) return;
  const follows = Date.now() - firstAt < SEQUENCE_MS ? `${first} ${event.key}` : "";
  [first, firstAt] = [event.key, Date.now()];
  if ((follows && use(follows)) || use(event.key)) event.preventDefault();
});

const choice = document.querySelector("[data-single-keys]");
if (choice) {
  choice.checked = !isOff();
  choice.addEventListener("change", () => localStorage.setItem(OFF, choice.checked ? "0" : "1"));
}
window.brushwork.openAround = openAround;
