// Shows samples large in a dialog: left and right change the prompt, up and down the step;
// `c` switches to the base model's image in the same place. A mark of the chart opens the samples of
// its step; what uses a checkpoint is the form of its row. The shown sample stands in the address, which opens it again, also on an older page of
// samples. The zoom is that of zoom.js.
const viewer = document.querySelector("[data-viewer]");
const picture = viewer.querySelector("[data-viewer-image]");
const facts = viewer.querySelector("[data-viewer-facts]");
const title = viewer.querySelector("[data-viewer-title]");
const baseButton = viewer.querySelector("[data-viewer-base]");
const useForm = viewer.querySelector("[data-viewer-use]");
const tryLink = viewer.querySelector("[data-viewer-try]");
const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down" };
let place = null; // id of the shown sample: stays valid when new rows are added above
let opener = null; // id of the mark of the chart that opened it; then the focus returns there
let showsBase = false;

// the current grid: it is replaced while the run continues
const rows = () =>
  [...document.querySelectorAll("[data-samples] tbody tr")].map((row) =>
    [...row.querySelectorAll("td")].map((cell) => cell.querySelector("[data-sample]")),
  );

function find(link) {
  const grid = rows();
  const row = grid.findIndex((cells) => cells.some((cell) => cell?.id === link));
  return { grid, row, column: row < 0 ? -1 : grid[row].findIndex((cell) => cell?.id === link) };
}

const setAddress = (hash) => history.replaceState(history.state, "", location.pathname + location.search + hash);

function open(link, mark) {
  showsBase = false;
  opener = mark?.id ?? null;
  show(link);
  if (!viewer.open) viewer.showModal();
}

// a sample that the address names; one of another page of samples is looked for on the page of its step
function openAddress() {
  const [, step] = location.hash.match(/^#sample-(\d{1,9})-\d{1,3}$/) ?? [];
  if (!step) return;
  const link = document.getElementById(location.hash.slice(1));
  const page = `?before=${Number(step) + 1}`;
  if (link) open(link);
  else if (location.search !== page) location.replace(location.pathname + page + location.hash);
}

function show(link) {
  if (!link) return;
  place = link.id;
  setAddress(`#${place}`);
  const { grid, column } = find(place);
  const base = showsBase ? grid.at(-1)?.[column] : null;
  const shown = base ?? link;
  picture.src = shown.href;
  picture.alt = shown.querySelector("img").alt;
  title.textContent = link.dataset.prompt;
  const step = shown.dataset.step === "base" ? "Base model without the adapter" : `Step ${shown.dataset.step}`;
  const epoch = shown.dataset.epoch ? ` · epoch ${shown.dataset.epoch}` : "";
  facts.textContent = `${step}${epoch} · seed ${shown.dataset.seed}`;
  const [use, tried] = ["use", "try"].map((act) => document.getElementById(`${act}-${place.split("-")[1]}`)); // none: no checkpoint, or it is in use
  useForm.hidden = showsBase || !use;
  if (use) useForm.action = use.form.action;
  tryLink.hidden = showsBase || !tried;
  if (tried) {
    tryLink.href = tried.href;
    tryLink.search = new URLSearchParams([["adapter", new URLSearchParams(tried.search).get("adapter")], ["prompt", link.dataset.prompt]]);
  }
  baseButton.setAttribute("aria-pressed", String(showsBase));
  baseButton.textContent = showsBase ? "Show the sample" : "Show the base model";
}

function go(direction) {
  const { grid, row, column } = find(place);
  if (row < 0) return;
  const down = { up: -1, down: 1 }[direction] ?? 0;
  const right = { left: -1, right: 1 }[direction] ?? 0;
  show(grid[row + down]?.[column + right]);
}

function toggleBase() {
  showsBase = !showsBase;
  show(document.getElementById(place));
}

document.addEventListener("click", (event) => {
  const mark = event.target.closest?.(".chart-mark");
  const link = mark
    ? document.querySelector(`#step-${mark.dataset.step} [data-sample]`)
    : event.target.closest?.("[data-sample]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  open(link, mark);
});
viewer.addEventListener("keydown", (event) => {
  const direction = KEYS[event.key];
  if (direction) go(direction);
  else if (event.key === "c") toggleBase();
  else return;
  event.preventDefault();
});
viewer.addEventListener("click", (event) => {
  if (event.target === viewer || event.target.closest("[data-viewer-close]")) viewer.close();
  const button = event.target.closest("[data-viewer-go]");
  if (button) go(button.dataset.viewerGo);
  if (event.target.closest("[data-viewer-base]")) toggleBase();
});
viewer.addEventListener("close", () => {
  setAddress("");
  const target = document.getElementById(opener ?? place) ?? document.getElementById(place);
  if (target) target.hidden = false; // a mark that had no room meanwhile
  target?.focus();
});
addEventListener("hashchange", openAddress);
addEventListener("load", openAddress); // the browser goes to the place in the address before, and takes the focus there
