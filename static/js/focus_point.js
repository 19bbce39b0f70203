// The point that crops of an image keep: dragged, moved by the arrow keys (Shift: further) or typed.
// While it moves, the crop is only drawn; the server says where it is once the point is saved.
const view = document.querySelector("[data-focus-crop]");
const handle = view.querySelector("[data-focus-handle]");
const cut = view.querySelector("[data-focus-cut]");
const [left, top] = ["left", "top"].map((side) => document.querySelector(`[data-focus-${side}]`));
const words = document.querySelector("[data-focus-state]");
const { width, height } = view.viewBox.baseVal;
const crop = { width: Number(view.dataset.cropWidth), height: Number(view.dataset.cropHeight) };
const STEP = 1; // percent
const FAR = 10;
const WAIT_MS = 400;
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
let point = [Number(left.value), Number(top.value)]; // percent
let timer = 0;
let asked = 0; // of the newest answer that counts

const inside = (value, most) => Math.max(0, Math.min(most, value));
const textOf = ([x, y]) => `${Math.round(x)} % from the left, ${Math.round(y)} % from the top`;

function drawCrop(x, y) {
  cut.setAttribute("d", `M0 0H${width}V${height}H0Z M${x} ${y}h${crop.width}v${crop.height}h${-crop.width}Z`);
}

function draw() {
  const [x, y] = [(point[0] / 100) * width, (point[1] / 100) * height];
  handle.setAttribute("transform", `translate(${x} ${y})`);
  handle.setAttribute("aria-valuenow", Math.round(point[0]));
  handle.setAttribute("aria-valuetext", textOf(point));
  [left.value, top.value] = point.map((value) => Math.round(value * 10) / 10);
  drawCrop(inside(x - crop.width / 2, width - crop.width), inside(y - crop.height / 2, height - crop.height));
}

function moveTo(x, y) {
  point = [inside(x, 100), inside(y, 100)];
  draw();
  clearTimeout(timer);
  timer = setTimeout(save, WAIT_MS);
}

async function save({ center = false, leaving = false } = {}) {
  clearTimeout(timer);
  timer = 0;
  asked += 1;
  const mine = asked;
  const [x, y] = center ? ["", ""] : point.map((value) => value.toFixed(2));
  try {
    const answer = await window.brushwork.post(view.dataset.focusCrop, { left: x, top: y }, { keepalive: leaving });
    const body = await answer.json();
    if (mine !== asked) return;
    if (!answer.ok) throw new Error(body.detail);
    drawCrop(body.left, body.top);
    words.textContent = center ? "Saved: the center." : `Saved: ${body.text}.`;
  } catch (error) {
    if (mine === asked) words.textContent = `The focus point is not saved. ${error.message || "Try again."}`;
  }
}

function placeOf(event) {
  const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(view.getScreenCTM().inverse());
  return [(place.x / width) * 100, (place.y / height) * 100];
}

let held = null; // from the pointer to the point
handle.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  event.stopPropagation(); // the frame would be dragged
  event.preventDefault();
  handle.focus();
  const [x, y] = placeOf(event);
  held = [point[0] - x, point[1] - y];
  handle.setPointerCapture(event.pointerId);
});
// a finger moves the point, and not the page: `touch-action` does nothing for this part of a drawing
handle.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
handle.addEventListener("pointermove", (event) => {
  if (!held) return;
  const [x, y] = placeOf(event);
  moveTo(x + held[0], y + held[1]);
});
for (const end of ["pointerup", "pointercancel"]) handle.addEventListener(end, () => (held = null));
handle.addEventListener("keydown", (event) => {
  const arrow = ARROWS[event.key];
  if (!arrow || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  event.stopPropagation(); // the arrows without it are the next image
  const step = event.shiftKey ? FAR : STEP;
  moveTo(point[0] + arrow[0] * step, point[1] + arrow[1] * step);
});
handle.addEventListener("dblclick", (event) => event.stopPropagation());
document.querySelector("[data-focus-form]").addEventListener("submit", (event) => {
  event.preventDefault();
  save();
});
for (const field of [left, top]) {
  field.addEventListener("change", () => {
    const values = [left, top].map((one) => Number(one.value));
    if (values.every(Number.isFinite)) moveTo(...values);
  });
}
document.querySelector("[data-focus-center]").addEventListener("submit", (event) => {
  event.preventDefault();
  point = [50, 50];
  draw();
  save({ center: true });
});
window.addEventListener("pagehide", () => timer && save({ leaving: true }));
