// Selecting images and editing them in bulk: boxes, ranges with Shift, all that match. What is selected is kept here, so
// it also holds for images that are not on the page. The form `data-bulk` sends it with every request of an edit.
const form = document.querySelector("[data-bulk]");
const list = document.querySelector("[data-tiles]");
const REST_MS = 400; // what rests for so long is previewed

let chosen = new Set(); // ids; with `isAll`, those that are left out
let isAll = form.elements.all.value === "1";
let last = null; // the id of the box that was clicked last
let timer = 0;

const boxes = () => [...list.querySelectorAll("[data-select]")];
const panel = () => document.querySelector("[data-edit]");
const isChosen = (id) => isAll !== chosen.has(id);
const total = () => Number(document.getElementById("dataset-filters").dataset.matching); // kept up to date
const count = () => (isAll ? Math.max(0, total() - chosen.size) : chosen.size);

function choose(id, isOn) {
  if (isOn !== isAll) chosen.add(id);
  else chosen.delete(id);
}

function show() {
  for (const box of boxes()) box.checked = isChosen(box.value);
  const number = count();
  form.toggleAttribute("data-selected", number > 0);
  const place = form.querySelector("[data-selected-count]");
  const words = number ? `${number.toLocaleString("en")} selected` : "";
  if (place.textContent !== words) place.textContent = words;
  const all = form.querySelector("[data-select-all]");
  all.hidden = !total() || (isAll && !chosen.size);
  all.textContent = `Select all ${total().toLocaleString("en")}${form.elements.filter.value ? " that match" : ""}`;
}

function preview() {
  clearTimeout(timer);
  if (panel()) htmx.trigger(panel(), "refresh");
}

// what would be applied is what is shown: nothing, until the preview has caught up
function expire() {
  const apply = document.getElementById("edit-apply");
  if (!apply) return;
  apply.disabled = true;
  clearTimeout(timer);
  timer = setTimeout(preview, REST_MS);
}

function changed() {
  show();
  expire();
}

function selectAll() {
  isAll = true;
  chosen = new Set();
  changed();
}

function selectNone() {
  isAll = false;
  chosen = new Set();
  last = null;
  changed();
}

function selectRange(from, to, isOn) {
  const all = boxes();
  const ends = [all.indexOf(from), all.indexOf(to)].sort((a, b) => a - b);
  for (const box of all.slice(ends[0], ends[1] + 1)) choose(box.value, isOn);
  changed();
}

// "3 5 8-12": thousands of ids in one field
function asText(ids) {
  const parts = [];
  for (const id of [...ids].map(Number).sort((a, b) => a - b)) {
    const part = parts.at(-1);
    if (part && id === part[1] + 1) part[1] = id;
    else parts.push([id, id]);
  }
  return parts.map(([first, end]) => (first === end ? `${first}` : `${first}-${end}`)).join(" ");
}

const shownIds = () => asText([...list.querySelectorAll('[id^="image-"]')].map((tile) => tile.id.slice(6)));

// above the images, its head is what one looks at; beside them, it sticks
function showPanel() {
  const isAbove = panel() && getComputedStyle(panel().parentElement).position !== "sticky";
  panel()?.scrollIntoView({ block: isAbove ? "start" : "nearest" });
}

function closePanel() {
  if (!panel()) return false;
  panel().parentElement.replaceChildren();
  window.brushwork.focusTile({ scroll: false });
  return true;
}

window.brushwork.on("input", "[data-edit]", expire);
window.brushwork.on("click", "[data-close-edit]", (_, event) => {
  event.preventDefault();
  closePanel();
});
list.addEventListener("click", (event) => {
  if (!event.target.matches("[data-select]")) return;
  const before = event.shiftKey && boxes().find((box) => box.value === last);
  choose(event.target.value, event.target.checked);
  if (before) selectRange(before, event.target, event.target.checked);
  else changed();
  last = event.target.value;
});
// the images after the first 192 are on another page: what is selected goes along
const KEPT = `selected ${location.pathname}`;
list.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || !event.target.closest(".tiles-more a:not([hx-get])")) return;
  sessionStorage.setItem(KEPT, JSON.stringify({ isAll, chosen: [...chosen] }));
});
document.addEventListener("tiles:extend", (event) => {
  selectRange(event.detail.from, event.detail.to, true);
  last = event.detail.to.value;
});
form.querySelector("[data-select-all]").addEventListener("click", (event) => {
  event.preventDefault();
  selectAll();
});
form.querySelector("[data-select-none]").addEventListener("click", (event) => {
  event.preventDefault();
  selectNone();
  closePanel();
  window.brushwork.focusTile({ scroll: false });
});
document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing) return;
  if (event.key === "Enter" && event.target.matches?.("[data-edit] input")) {
    event.preventDefault(); // it would send the form
    return preview();
  }
  const isField = event.target.matches?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
  const isAllKey = event.key.toLowerCase() === "a" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey;
  if (isAllKey && !isField) {
    event.preventDefault();
    selectAll();
  } else if (event.key === "Escape" && event.target.closest?.("[data-edit]")) {
    event.preventDefault();
    closePanel();
  } else if (event.key === "Escape" && !isField && count() && !document.querySelector("[popover]:popover-open")) {
    event.preventDefault();
    selectNone();
  }
  return undefined;
});

form.addEventListener("click", (event) => {
  const link = event.target.closest("[data-write-captions]");
  if (!link) return;
  const query = new URLSearchParams(isAll ? { filter: form.elements.filter.value } : {});
  if (chosen.size) query.set("images", asText(chosen));
  link.search = query;
});
form.addEventListener("formdata", (event) => {
  event.formData.delete("image");
  event.formData.set("images", asText(chosen));
  event.formData.set("all", isAll ? "1" : "");
  event.formData.set("shown", shownIds());
});
document.addEventListener("images-gone", selectNone);
// an undo is a form of its own
document.addEventListener("htmx:configRequest", (event) => {
  if (/\/edits\/\d+\/undo$/.test(event.detail.path)) event.detail.parameters.shown = shownIds();
});

// a caption that is being written stays: saving it tells that it was changed
document.addEventListener("htmx:oobBeforeSwap", (event) => {
  const area = event.detail.target.querySelector?.("[data-caption]");
  if (area && window.brushwork.isCaptionDirty(area)) event.detail.shouldSwap = false;
});
document.addEventListener("htmx:oobAfterSwap", show);
document.addEventListener("htmx:afterSettle", (event) => {
  show();
  const path = event.detail.pathInfo?.requestPath ?? "";
  if (!path.includes("/edits")) return;
  const undone = path.match(/\/edits\/(\d+)\/undo$/);
  if (undone) document.getElementById(`toast-edit-${undone[1]}`)?.remove();
  const said = document.querySelectorAll("[id^=toast-edit-], [data-edit-toast]");
  for (const old of [...said].slice(0, -1)) old.remove();
  const preview = document.getElementById("edit-preview");
  if (preview && path.endsWith("/preview")) document.querySelector("[data-caption-live]").textContent = preview.dataset.says;
  if (preview && event.detail.target.id === "edit-panel") showPanel();
  if (!document.activeElement || document.activeElement === document.body) window.brushwork.focusTile({ scroll: false });
});
new MutationObserver(show).observe(list, { childList: true });

if (!isAll) for (const box of boxes()) if (box.checked) chosen.add(box.value);
for (const id of form.elements.images.value.split(" ")) if (id) chosen.add(id);
const kept = sessionStorage.getItem(KEPT);
sessionStorage.removeItem(KEPT);
if (kept && !panel()) {
  isAll = JSON.parse(kept).isAll;
  chosen = new Set(JSON.parse(kept).chosen);
}
window.addEventListener("pageshow", show); // the browser may have restored boxes
show();
showPanel(); // an address may have opened it
