// Zoom of the large sample: buttons and the keys + and -, a double click, and panning by dragging,
// scrolling or Shift with the arrow keys. Zoom and place stay for the next sample, to be compared.
const viewer = document.querySelector("[data-viewer]");
const frame = viewer.querySelector("[data-viewer-frame]");
const level = viewer.querySelector("[data-viewer-level]");
const LEVELS = [1, 2, 4, 8];
const PAN = 0.2; // of the frame, for one key
const KEYS = { "+": 1, "=": 1, "-": -1 };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
let drag = null;

const zoom = () => Number(frame.dataset.zoom);

// `x` and `y`: the place in the frame that stays where it is, its center by default
function setZoom(next, x = frame.clientWidth / 2, y = frame.clientHeight / 2) {
  const ratio = next / zoom();
  const left = (frame.scrollLeft + x) * ratio - x;
  const top = (frame.scrollTop + y) * ratio - y;
  frame.dataset.zoom = next;
  frame.style.setProperty("--zoom", next);
  frame.scrollTo({ left, top, behavior: "instant" });
  frame.tabIndex = next > 1 ? 0 : -1; // what scrolls can be reached
  level.textContent = `${next}×`;
  for (const button of viewer.querySelectorAll("[data-viewer-zoom]")) {
    button.setAttribute("aria-disabled", String(!LEVELS[LEVELS.indexOf(next) + Number(button.dataset.viewerZoom)]));
  }
}

function step(by) {
  const next = LEVELS[LEVELS.indexOf(zoom()) + by];
  if (next) setZoom(next);
}

// before viewer.js, which takes the arrows without Shift
viewer.addEventListener(
  "keydown",
  (event) => {
    const arrow = event.shiftKey && !event.target.closest("[role=slider]") && ARROWS[event.key];
    const by = KEYS[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey || !(by || arrow)) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (by) step(by);
    else frame.scrollBy({ left: arrow[0] * PAN * frame.clientWidth, top: arrow[1] * PAN * frame.clientHeight });
  },
  true,
);
viewer.addEventListener("click", (event) => {
  const button = event.target.closest("[data-viewer-zoom]");
  if (button) step(Number(button.dataset.viewerZoom));
});
frame.addEventListener("dblclick", (event) => {
  const box = frame.getBoundingClientRect();
  setZoom(zoom() > 1 ? 1 : 4, event.clientX - box.left, event.clientY - box.top);
});

// a finger scrolls by itself
frame.addEventListener("pointerdown", (event) => {
  if (event.pointerType !== "mouse" || event.button !== 0 || zoom() === 1) return;
  drag = { x: event.clientX + frame.scrollLeft, y: event.clientY + frame.scrollTop };
  frame.setPointerCapture(event.pointerId);
  frame.classList.add("dragged");
});
frame.addEventListener("pointermove", (event) => {
  if (drag) frame.scrollTo({ left: drag.x - event.clientX, top: drag.y - event.clientY, behavior: "instant" });
});
frame.addEventListener("lostpointercapture", () => {
  drag = null;
  frame.classList.remove("dragged");
});
viewer.addEventListener("close", () => setZoom(1));
