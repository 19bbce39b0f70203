// Marks of the chart: links above it, each at its step, with a line down through the loss. Those
// that would overlap are left out, the ones kept or in use last. Arrow keys walk along them.
const frame = document.querySelector("[data-chart-frame]");
const GAP = 4;
let chart = null; // of the last drawing: left(step) in pixels or null, bottom of the plots

const marks = () => [...frame.querySelectorAll(".chart-mark")];
const isShown = (mark) => !mark.hidden;

function rank(mark) {
  if (mark === document.activeElement) return 3;
  return mark.classList.contains("kept") ? 2 : Number(mark.classList.contains("saved"));
}

function place() {
  if (!chart) return;
  const all = marks();
  const taken = [];
  const step = (mark) => Number(mark.dataset.step);
  for (const mark of all.toSorted((a, b) => rank(b) - rank(a) || step(b) - step(a))) {
    mark.hidden = false;
    const width = mark.offsetWidth;
    const middle = chart.left(step(mark));
    const left = Math.min(Math.max(middle - width / 2, 0), frame.clientWidth - width);
    const isFree = taken.every((one) => left > one.right + GAP || left + width + GAP < one.left);
    mark.hidden = middle === null || !isFree;
    if (mark.hidden) continue;
    taken.push({ left, right: left + width });
    mark.style.left = `${left}px`;
    mark.style.setProperty("--line", `${middle - left}px`);
  }
  frame.style.setProperty("--bottom", `${chart.bottom}px`);
  const shown = all.filter(isShown);
  const entry = shown.find((mark) => mark === document.activeElement) ?? shown.at(-1);
  for (const mark of all) mark.tabIndex = mark === entry ? 0 : -1; // one stop for Tab
}

frame.addEventListener("chart:drawn", (event) => {
  chart = event.detail;
  frame.classList.add("is-drawn");
  place();
});
// htmx replaces the marks while a run trains
new MutationObserver(place).observe(frame, { childList: true });
frame.addEventListener("keydown", (event) => {
  const shown = marks().filter(isShown);
  const here = shown.indexOf(event.target);
  const next = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: shown.length - 1 }[event.key];
  if (here < 0 || !shown[next]) return;
  event.preventDefault();
  for (const mark of shown) mark.tabIndex = mark === shown[next] ? 0 : -1;
  shown[next].focus();
});
