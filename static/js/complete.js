// Completes the tag at the caret of a caption from the tags of its dataset: a listbox below the
// field, walked by the arrows, taken by Enter or Tab, closed by Escape.
const { make, on } = window.brushwork;
const WAIT_MS = 150;
let area = null; // whose list is open
let list = null;
let timer = 0;
let asked = 0;

// the tag at the caret: from the comma before it to the caret
function typedIn(field) {
  const before = field.value.slice(0, field.selectionStart);
  const start = before.lastIndexOf(",") + 1;
  const tag = before.slice(start);
  return { start: start + (tag.length - tag.trimStart().length), tag: tag.trim() };
}

function close() {
  clearTimeout(timer);
  asked += 1;
  list?.remove();
  area?.removeAttribute("aria-activedescendant");
  area?.setAttribute("aria-expanded", "false");
  [area, list] = [null, null];
}

async function offer(field) {
  const { tag } = typedIn(field);
  if (!tag || field.selectionStart !== field.selectionEnd) return close();
  asked += 1;
  const mine = asked;
  let found = [];
  try {
    const answer = await window.brushwork.fetch(`${field.dataset.complete}?${new URLSearchParams({ q: tag.slice(0, 100) })}`);
    if (answer.ok) found = await answer.json();
  } catch {
    // without the server there is nothing to offer
  }
  if (mine !== asked || document.activeElement !== field) return undefined;
  close();
  const there = new Set(field.value.split(",").map((one) => one.trim().toLowerCase()));
  found = found.filter((one) => !there.has(one.toLowerCase()));
  if (found.length) open(field, found);
  return undefined;
}

function open(field, tags) {
  area = field;
  list = make("ul", { className: "completions", id: "completions", role: "listbox", ariaLabel: "Tags of the dataset" });
  tags.forEach((tag, place) => {
    const option = make("li", { id: `completion-${place}`, role: "option", ariaSelected: "false", textContent: tag });
    option.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the field keeps the focus
      take(option);
    });
    list.append(option);
  });
  area.setAttribute("aria-autocomplete", "list");
  area.setAttribute("aria-controls", "completions");
  area.setAttribute("aria-expanded", "true");
  list.popover = "manual"; // above everything: a tile would grow with it, and its row of tiles too
  document.body.append(list);
  list.showPopover();
  place();
}

// below the field, or above it where there is no room
function place() {
  const field = area.getBoundingClientRect();
  const { height } = list.getBoundingClientRect();
  const below = field.bottom + height <= document.documentElement.clientHeight || field.top < height;
  list.style.left = `${field.left}px`;
  list.style.width = `${field.width}px`;
  list.style.top = `${below ? field.bottom : field.top - height}px`;
}

const chosen = () => list?.querySelector('[aria-selected="true"]');

function walk(by) {
  const options = [...list.children];
  const now = options.indexOf(chosen());
  const next = now < 0 ? (by > 0 ? 0 : options.length - 1) : (now + by + options.length) % options.length;
  options.forEach((option, place) => option.setAttribute("aria-selected", String(place === next)));
  area.setAttribute("aria-activedescendant", options[next].id);
  options[next].scrollIntoView({ block: "nearest" });
}

function take(option) {
  const field = area;
  const { start } = typedIn(field);
  field.setRangeText(option.textContent, start, field.selectionStart, "end");
  close();
  field.dispatchEvent(new Event("input", { bubbles: true }));
  close(); // what was taken is not offered again
}

on("input", "[data-complete]", (field) => {
  clearTimeout(timer);
  timer = setTimeout(offer, WAIT_MS, field);
});
// before the scripts that take Escape, Enter and the arrows of a caption
document.addEventListener(
  "keydown",
  (event) => {
    if (!list || event.target !== area || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    const option = chosen();
    if (event.key === "ArrowDown") walk(1);
    else if (event.key === "ArrowUp") walk(-1);
    else if (event.key === "Escape") close();
    else if (option && (event.key === "Enter" || event.key === "Tab")) take(option);
    else return;
    event.preventDefault();
    event.stopImmediatePropagation();
  },
  true,
);
document.addEventListener("focusout", (event) => event.target === area && close());
document.addEventListener("scroll", (event) => list && event.target !== list && place(), true);
window.addEventListener("resize", () => list && place());
