// The keys of a grid: arrows walk its cells, which are one stop of the Tab key; C compares a cell with its neighbor. A cell
// that is tapped is shown where its panel is below the table.
const OFF = "single-keys-off"; // as in keys.js
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const table = document.querySelector("[data-grid]");
const rows = [...table.tBodies[0].rows].map((row) => [...row.querySelectorAll("[data-place]")]);
const cells = rows.flat();

function stopAt(cell) {
  for (const other of cells) other.tabIndex = other === cell ? 0 : -1;
}

function positionOf(cell) {
  const y = rows.findIndex((row) => row.includes(cell));
  return [rows[y].indexOf(cell), y];
}

function neighborOf(cell) {
  const [x, y] = positionOf(cell);
  return rows[y][x + 1] || rows[y][x - 1] || rows[y + 1]?.[x] || rows[y - 1]?.[x];
}

function target(cell, event) {
  const [x, y] = positionOf(cell);
  const row = event.ctrlKey ? rows[event.key === "Home" ? 0 : rows.length - 1] : rows[y];
  if (event.key === "Home") return row[0];
  if (event.key === "End") return row[row.length - 1];
  const step = STEPS[event.key];
  return step && !event.ctrlKey ? rows[y + step[1]]?.[x + step[0]] || cell : null;
}

table.addEventListener("keydown", (event) => {
  const cell = event.target.closest("[data-place]");
  if (!cell || event.altKey || event.metaKey) return;
  const next = target(cell, event);
  if (next) {
    event.preventDefault();
    next.focus();
  } else if (event.key === "c" && !event.ctrlKey && localStorage.getItem(OFF) !== "1") {
    const neighbor = neighborOf(cell);
    if (!neighbor) return;
    event.preventDefault();
    location.assign(`${table.dataset.grid}/compare?a=${cell.dataset.place}&b=${neighbor.dataset.place}`);
  }
});
table.addEventListener("focusin", (event) => {
  const cell = event.target.closest("[data-place]");
  if (cell) stopAt(cell);
});
table.addEventListener("click", (event) => {
  const chosen = event.target.closest("[data-place]");
  if (!chosen) return;
  for (const cell of cells) cell.toggleAttribute("aria-current", cell === chosen);
  chosen.setAttribute("aria-current", "true");
});
let isTouched = false; // by mouse or touch: keys stay in the grid
table.addEventListener("click", (event) => { isTouched = event.detail > 0; });
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.target.id !== "chosen" || !isTouched) return;
  isTouched = false;
  if (event.target.getBoundingClientRect().top > innerHeight * 0.8) event.target.scrollIntoView(); // a phone
});
stopAt(table.querySelector("[aria-current]") || cells[0]);
