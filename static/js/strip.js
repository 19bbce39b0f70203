// Strips: images of one seed at several weights of an adapter (a line), of two (a square), or with each checkpoint of a
// run. One of them is shown in place of the result with no request: by a click, by dragging in the square, by arrow
// keys, or by moving a weight or the slider of the checkpoints. A strip goes out of date when anything else is changed.
const { on } = window.brushwork;
const NEAR = 0.126; // half the distance between two weights of a strip, and what rounding adds
const EXACT = 0.0001;
const phone = matchMedia("(width < 768px)");
const FIELDS = "[data-weight-slider], [data-weight-number]";
let isOld = false; // something else was changed, perhaps while the strip was still to come
let exact = null; // the cell of just the weights in the form
let near = null; // the cell next to them, until their own image is there
let asker = null; // the button that asked for the strip

const stripOnPage = () => document.querySelector("[data-strip]");
const cellsOf = (strip) => [...strip.querySelectorAll(".strip-cell")];
const numbersOf = (strip) => strip.dataset.strip.split(" ").map((place) => document.getElementById(`weight-${place}`));
const weightsOf = (cell) => cell.dataset.weights.split(" ").map(Number);
const least = (list, measure) => list.reduce((best, one) => (measure(one) < measure(best) ? one : best));

function center(cell) {
  const line = cell.closest(".weights");
  if (line) line.scrollLeft = cell.offsetLeft - (line.clientWidth - cell.offsetWidth) / 2;
}

// the one cell that Tab reaches and that is outlined
function mark(strip, cell) {
  center(cell);
  for (const other of cellsOf(strip)) {
    other.setAttribute("aria-pressed", String(other === cell));
    other.tabIndex = other === cell ? 0 : -1;
  }
  if (document.activeElement?.matches(".strip-cell")) cell.focus({ preventScroll: true });
  const slider = strip.querySelector("[data-strip-slider]");
  if (!slider) return;
  slider.value = String(cellsOf(strip).indexOf(cell));
  slider.setAttribute("aria-valuetext", cell.dataset.label);
  strip.querySelector("[data-strip-try]").value = cell.dataset.put;
}

// false while the result in whose place it would be shown has no image
function show(strip, cell) {
  mark(strip, cell);
  const empty = document.querySelector("#result [data-no-result]");
  empty?.replaceWith(document.querySelector("[data-strip-result]").content.cloneNode(true));
  const result = document.querySelector("#result .result-images");
  const image = result?.querySelector(".comparison-side img, .drawn img");
  if (!image) return false;
  const { label, src } = cell.dataset;
  image.src = src;
  image.alt = label;
  const small = cell.querySelector("img");
  for (const side of ["width", "height"]) image.setAttribute(side, small.getAttribute(side));
  const link = image.closest("a");
  if (link) link.href = src;
  const shown = result.querySelector(".comparison-label, figcaption span");
  const isAwaited = result.parentElement.hasAttribute("aria-busy");
  if (shown) shown.textContent = isAwaited ? `Nearest: ${label}` : label;
  result.querySelector(".old")?.classList.remove("old");
  result.parentElement.classList.toggle("shows-strip", !isAwaited); // what can be done with the result is not for this image
  const told = document.getElementById("result-status");
  if (!strip.contains(document.activeElement) && told.textContent !== label) told.textContent = label;
  return true;
}

// "exact" or "near" when an image of the strip is shown for the weight in this field; null: none
function showWeight(field) {
  exact = near = null;
  const strip = stripOnPage();
  if (!strip) return null;
  const numbers = numbersOf(strip);
  const row = field.matches(FIELDS) ? field.closest("[data-weight-row]") : null; // text encoders have one of their own
  isOld ||= !row || !numbers.some((number) => number?.closest("[data-weight-row]") === row);
  strip.classList.toggle("old", isOld);
  const cells = cellsOf(strip);
  if (isOld || !cells.length) return null;
  const wanted = numbers.map((number) => (number.value.trim() ? Number(number.value.replace(",", ".")) : NaN));
  const offs = (cell) => weightsOf(cell).map((weight, axis) => Math.abs(weight - wanted[axis]));
  const nearest = least(cells, (cell) => offs(cell).reduce((sum, off) => sum + off));
  const off = Math.max(...offs(nearest));
  if (!(off <= NEAR) || !show(strip, nearest)) return null;
  if (off < EXACT) exact = nearest;
  else near = nearest;
  return exact ? "exact" : "near";
}

// a strip that has come: the image of the weights in the form, where the result lacks it
function showFirst(strip) {
  const cell = strip.querySelector(".strip-cell[aria-pressed=true]");
  const lacking = document.querySelector("#result :is([data-no-result], .out-of-date)");
  if (cell) center(cell);
  if (!cell || !lacking) return;
  const numbers = numbersOf(strip);
  const isSame = numbers.every((number, axis) => number && Math.abs(Number(number.value.replace(",", ".")) - weightsOf(cell)[axis]) < EXACT);
  if (strip.querySelector("[data-strip-slider]")) show(strip, cell);
  else if (isSame || (numbers[0] && lacking.matches("[data-no-result]"))) numbers[0].dispatchEvent(new Event("input", { bubbles: true }));
}

// on a phone it is far below its button, and a square stands above the result; a person who went elsewhere stays there
function bringIntoView() {
  if (!asker?.isConnected || ![asker, document.body].includes(document.activeElement)) return;
  const block = phone.matches ? "start" : "nearest";
  setTimeout(() => document.getElementById("strip-panel").scrollIntoView({ block })); // once the image above has its place
}

// its weights go into the form, which shows its image
function choose(cell) {
  const strip = stripOnPage();
  const numbers = numbersOf(strip);
  if (isOld || !numbers.every(Boolean)) {
    show(strip, cell);
    return;
  }
  weightsOf(cell).forEach((weight, axis) => { numbers[axis].value = String(weight); });
  for (const number of numbers) number.dispatchEvent(new Event("input", { bubbles: true }));
}

on("click", ".strip-cell", choose);
on("input", "[data-strip-slider]", (slider) => choose(cellsOf(stripOnPage())[slider.value]));

on("keydown", ".strip-cell", (cell, event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const cells = cellsOf(stripOnPage());
  const columns = Number(cell.closest("[data-columns]")?.dataset.columns ?? cells.length);
  const place = cells.indexOf(cell);
  const first = place - (place % columns);
  const next = {
    ArrowLeft: Math.max(first, place - 1),
    ArrowRight: Math.min(first + columns - 1, place + 1),
    ArrowUp: place - columns,
    ArrowDown: place + columns,
    Home: first,
    End: first + columns - 1,
  }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  if (cells[next] && next !== place) choose(cells[next]);
});

// dragging in a square: the cell next to the pointer, also from outside
let isDragged = false;
function drag(event) {
  const cell = least(cellsOf(stripOnPage()), (one) => {
    const { x, y, width, height } = one.getBoundingClientRect();
    return Math.hypot(x + width / 2 - event.clientX, y + height / 2 - event.clientY);
  });
  if (cell.getAttribute("aria-pressed") === "false") choose(cell);
}
document.addEventListener("pointerdown", (event) => {
  isDragged = event.button === 0 && Boolean(event.target.closest?.(".square tbody"));
  if (isDragged) drag(event);
});
document.addEventListener("pointermove", (event) => isDragged && drag(event));
for (const end of ["pointerup", "pointercancel"]) document.addEventListener(end, () => { isDragged = false; });

document.addEventListener("submit", () => { exact = near = null; }, true);
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.target.id !== "strip" || event.detail.requestConfig.verb !== "post") return;
  isOld = false;
  asker = event.detail.elt;
});
document.addEventListener("htmx:afterSettle", (event) => {
  const strip = stripOnPage();
  strip?.classList.toggle("old", isOld);
  if (event.target.id === "result" && exact?.isConnected) show(strip, exact); // a redraw of weights before
  // while its own image is on its way, and has no preview yet
  if (event.target.id === "result" && near?.isConnected && event.target.querySelector(".old")) show(strip, near);
  if (event.target.id !== "strip") return;
  if (strip && !isOld) showFirst(strip);
  bringIntoView();
});

window.brushwork.showWeight = showWeight;
