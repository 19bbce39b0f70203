// The images of a dataset by keyboard: all tiles are one tab stop, the box that selects one. Arrows, Home and End walk
// the tiles, Enter goes into the caption, Escape comes out. What is in a tile can be reached by Tab once one is inside.
const list = document.querySelector("[data-tiles]");
const INSIDE = "a, button, input:not([type=hidden]), textarea, select, summary";

let current = null; // the box that is the tab stop
let place = 0; // of that box
let entered = null; // the tile whose controls can be reached by Tab

const boxes = () => [...list.querySelectorAll("[data-select]")];
const boxOf = (tile) => tile?.querySelector("[data-select]");

function setStops(tile, isOpen) {
  for (const control of tile.querySelectorAll(INSIDE)) control.tabIndex = isOpen ? 0 : -1;
}

function refresh() {
  if (!current?.isConnected) {
    const all = boxes(); // of images that are gone, the one that took their place is next
    current = document.getElementById(current?.id ?? "") ?? all[Math.min(place, all.length - 1)] ?? null;
  }
  if (!entered?.isConnected) entered = null;
  for (const tile of list.querySelectorAll("[data-tile]")) if (tile !== entered) setStops(tile, false);
  if (current) current.tabIndex = 0;
}

function makeCurrent(box) {
  if (current && current !== box) current.tabIndex = -1;
  current = box;
  place = boxes().indexOf(box);
  box.tabIndex = 0;
}

function enter(tile) {
  if (entered && entered !== tile) setStops(entered, false);
  entered = tile;
  setStops(tile, true);
  makeCurrent(boxOf(tile));
}

function leave() {
  const tile = entered;
  entered = null;
  if (tile) setStops(tile, false);
  if (current) current.tabIndex = 0;
}

function focusBox(box, { scroll = true } = {}) {
  leave();
  makeCurrent(box);
  box.focus({ preventScroll: true });
  if (scroll) box.closest("[data-tile]").scrollIntoView({ block: "nearest" });
}

// the tile above or below: the first of the next line whose middle is nearest
function vertical(all, box, by) {
  const middle = (one) => {
    const place = one.closest("[data-tile]").getBoundingClientRect();
    return { x: place.left + place.width / 2, y: place.top };
  };
  const from = middle(box);
  let best = null;
  for (let at = all.indexOf(box) + by; all[at]; at += by) {
    const place = middle(all[at]);
    if (Math.abs(place.y - from.y) < 1) continue;
    if (best && Math.abs(place.y - best.y) >= 1) break;
    const off = Math.abs(place.x - from.x);
    if (!best || off < best.off) best = { box: all[at], off, y: place.y };
  }
  return best?.box;
}

function target(box, key) {
  const all = boxes();
  const at = all.indexOf(box);
  switch (key) {
    case "ArrowRight": return all[at + 1];
    case "ArrowLeft": return all[at - 1];
    case "ArrowDown": return vertical(all, box, 1);
    case "ArrowUp": return vertical(all, box, -1);
    case "Home": return all[0];
    case "End": return all.at(-1);
    default: return undefined;
  }
}

function onBoxKey(event) {
  const box = event.target;
  if (event.key === "Enter") {
    event.preventDefault(); // would send the form
    const area = box.closest("[data-tile]").querySelector("[data-caption]");
    enter(box.closest("[data-tile]"));
    area?.focus();
    area?.setSelectionRange(area.value.length, area.value.length);
    return;
  }
  const isArrow = /^(Arrow|Home$|End$)/.test(event.key);
  if (!isArrow || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const next = target(box, event.key);
  if (next) {
    focusBox(next);
    if (event.shiftKey) document.dispatchEvent(new CustomEvent("tiles:extend", { detail: { from: box, to: next } }));
  } else if (/Down|Right/.test(event.key)) window.brushwork.loadMoreImages?.(() => focusBox(target(box, event.key) ?? box));
}

list.addEventListener("keydown", (event) => {
  if (event.isComposing || event.defaultPrevented) return;
  if (event.target.matches("[data-select]")) return onBoxKey(event);
  const tile = event.target.closest("[data-tile]");
  if (event.key !== "Escape" || !tile) return;
  event.preventDefault();
  event.stopPropagation();
  focusBox(boxOf(tile));
});
list.addEventListener("focusin", (event) => {
  const tile = event.target.closest("[data-tile]");
  if (!tile) return;
  if (!event.target.matches("[data-select]")) enter(tile);
  else if (tile !== entered) {
    leave();
    makeCurrent(event.target);
  }
});
list.addEventListener("focusout", (event) => {
  if (!event.relatedTarget || !list.contains(event.relatedTarget)) leave();
});

// with an image that is deleted, its button is gone; with one that comes back, the button of the message
document.addEventListener("htmx:afterSettle", (event) => {
  const path = event.detail.pathInfo?.requestPath ?? "";
  const [, id, what] = path.match(/\/images\/(\d+)\/(delete|restore)$/) ?? [];
  const nowhere = [null, document.body, document.getElementById("content")]; // also after its message has gone
  if (!what || !nowhere.includes(document.activeElement)) return;
  refresh();
  const box = (what === "restore" && document.getElementById(`select-${id}`)) || current;
  if (box) focusBox(box);
});

new MutationObserver(refresh).observe(list, { childList: true, subtree: true });
refresh();
window.brushwork.focusTile = (options) => {
  refresh(); // tiles may just have been replaced
  if (current) focusBox(current, options);
};
