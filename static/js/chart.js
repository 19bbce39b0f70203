// Chart of a run: the loss (faint raw values, a bold debiased moving average, circles of the
// validation loss) and below it the learning rate. The run page brings new points with its other
// news (`data-points` of #run-loss). Tells its frame where the steps are, for the marks above it.
const box = document.querySelector("[data-chart]");
const RETRY_MS = 2000;
const LEAST_POINTS = 10; // fewer show no course: the panel stays small
const LOSS_HEIGHT = 206;
const RATE_HEIGHT = 96; // with the axis of the steps, which stands below the lower plot only
const AXIS_HEIGHT = 28;
const AXIS_WIDTH = 52;
const WHOLE_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000];
const tools = document.querySelector("[data-chart-tools]");
const smoothing = tools.querySelector("[data-chart-smoothing]");
const logScale = tools.querySelector("[data-chart-log]");
const stepsPerEpoch = Number(box.dataset.epoch ?? 0);
const steps = [];
const raw = [];
const rates = []; // null where none was recorded
let last = 0;
let plots = []; // of the loss and, if it was recorded, of the learning rate
let heldOut = new Map(); // step → [loss, low, high] of the validation images

const settings = JSON.parse(localStorage.getItem("chart") ?? "{}");
smoothing.value = settings.smoothing ?? 0.95;
logScale.checked = settings.log ?? false;

function color(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

const hasRates = () => rates.some((rate) => rate !== null);

function smoothed() {
  const decay = Number(smoothing.value);
  let average = 0;
  let weight = 0;
  return raw.map((value) => {
    if (value === null) return null;
    average = decay * average + (1 - decay) * value;
    weight = decay * weight + (1 - decay);
    return average / weight;
  });
}

// One column of steps for all: the validation loss exists at step 0 and at checkpoints only
function columns() {
  const bold = smoothed();
  if (!heldOut.size) return { loss: [steps, raw, bold], rate: [steps, rates] };
  const at = new Map(steps.map((step, index) => [step, index]));
  const all = [...new Set([...steps, ...heldOut.keys()])].sort((a, b) => a - b);
  const pick = (values) => all.map((step) => (at.has(step) ? values[at.get(step)] : null));
  const held = [0, 1, 2].map((place) => all.map((step) => heldOut.get(step)?.[place] ?? null));
  return { loss: [all, pick(raw), pick(bold), ...held], rate: [all, pick(rates)] };
}

const figure = (_, value) => (value == null ? "–" : value.toPrecision(3));

function stepText(_, step) {
  if (step == null) return "–";
  const epochs = step / stepsPerEpoch;
  return stepsPerEpoch ? `${step} (epoch ${Number(epochs.toFixed(epochs < 1 ? 2 : 1))})` : String(step);
}

// as trainers write it: 0.002, 1.5e-4
function rateText(_, rate) {
  if (rate == null) return "–";
  const short = Number(rate.toPrecision(3));
  return short && short < 1e-3 ? short.toExponential() : String(short);
}

function heldOutSeries() {
  if (!heldOut.size) return {};
  const stroke = color("--good");
  const edge = { stroke, width: 0, points: { show: false }, spanGaps: true, value: figure };
  const points = { show: true, size: 9, width: 2, stroke, fill: color("--panel") };
  return {
    series: [
      { label: "Validation", stroke, width: 1, dash: [3, 4], points, spanGaps: true, value: figure },
      { ...edge, label: "from" },
      { ...edge, label: "to" },
    ],
    bands: [{ series: [5, 4], fill: stroke.replace("rgb(", "rgba(").replace(")", ", 0.14)") }],
  };
}

// Without the pointer, the legend has the newest value of each series.
function showNewest(plot) {
  if (plot.cursor.idx != null) return;
  plot.setLegend({ idxs: plot.data.map((values) => values.findLastIndex((value) => value != null)) });
}

function tellMarks() {
  const plot = plots[0];
  if (!plot) return;
  const { min, max } = plot.scales.x;
  const place = (step) => plot.over.offsetLeft + plot.valToPos(step, "x");
  const detail = {
    left: (step) => (step < min || step > max ? null : place(step)),
    bottom: LOSS_HEIGHT + (plots.length > 1 ? 0 : -AXIS_HEIGHT),
  };
  box.dispatchEvent(new CustomEvent("chart:drawn", { bubbles: true, detail }));
}

function add(kind, data, { height, isLowest, series, yAxis, hooks = {}, scale = {}, bands = [] }) {
  const axis = { stroke: color("--ink-2"), font: `12px ${getComputedStyle(document.body).fontFamily}` };
  const lines = { grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
  const holder = window.brushwork.make("div", { className: `chart-${kind}` });
  box.append(holder);
  const plot = new uPlot(
    {
      width: box.clientWidth,
      height,
      padding: [8, 12, isLowest ? 0 : 6, 0],
      scales: { x: { time: false }, y: scale },
      cursor: { y: false, points: { size: 7 }, sync: { key: "run" } },
      legend: { live: true },
      hooks: { setCursor: [showNewest], ready: [showNewest], setData: [showNewest], ...hooks },
      series: [{ label: "Step", value: stepText }, ...series],
      bands,
      axes: [
        { ...axis, ...lines, show: isLowest, grid: { show: false }, size: AXIS_HEIGHT, space: 60, incrs: WHOLE_STEPS },
        { ...axis, ...lines, size: AXIS_WIDTH, ...yAxis },
      ],
    },
    data,
    holder,
  );
  plots.push(plot);
}

function draw() {
  for (const plot of plots) plot.destroy();
  plots = [];
  box.replaceChildren();
  box.classList.toggle("with-points", steps.length >= LEAST_POINTS);
  if (steps.length < LEAST_POINTS) return;
  const { loss, rate } = columns();
  const held = heldOutSeries();
  const withRates = hasRates();
  add("loss", loss, {
    height: LOSS_HEIGHT,
    isLowest: !withRates,
    scale: { distr: logScale.checked ? 3 : 1 },
    hooks: { draw: [() => queueMicrotask(tellMarks)] },
    series: [
      { label: "Loss", stroke: color("--line-strong"), alpha: 0.55, width: 1, points: { show: false }, value: figure },
      { label: "Smoothed", stroke: color("--accent"), width: 2, points: { show: false }, value: figure },
      ...(held.series ?? []),
    ],
    bands: held.bands,
    yAxis: { values: (_, ticks) => ticks.map((tick) => (tick == null ? "" : Number(tick.toPrecision(3)))) },
  });
  if (!withRates) return;
  add("rate", rate, {
    height: RATE_HEIGHT,
    isLowest: true,
    scale: { range: (_, __, max) => [0, max * 1.15 || 1] },
    series: [{ label: "Learning rate", stroke: color("--ink-2"), width: 2, points: { show: false }, value: rateText }],
    yAxis: { space: 24, values: (_, ticks) => ticks.map((tick) => rateText(_, tick)) },
  });
}

function update() {
  const { loss, rate } = columns();
  plots[0]?.setData(loss);
  plots[1]?.setData(rate);
}

// New points replace everything from their first step: a run can go back to an earlier one.
function addSteps(series) {
  const { steps: found, values } = series.loss ?? { steps: [], values: [] };
  if (!found.length) return false;
  const rate = new Map(series.learning_rate?.steps.map((step, at) => [step, series.learning_rate.values[at]]));
  const known = steps.findIndex((step) => step >= found[0]);
  if (known >= 0) for (const column of [steps, raw, rates]) column.length = known;
  found.forEach((step, index) => {
    steps.push(step);
    raw.push(values[index]);
    rates.push(rate.get(step) ?? null);
  });
  last = steps.at(-1);
  return true;
}

function addHeldOut(series) {
  const [loss, low, high] = ["held_out", "held_out_low", "held_out_high"].map((key) => series[key]);
  heldOut = new Map((loss?.steps ?? []).map((step, at) => [step, [loss, low, high].map((one) => one.values[at])]));
}

function take(series) {
  const hadHeldOut = heldOut.size;
  const isNew = addSteps(series);
  addHeldOut(series);
  if (isNew || heldOut.size !== hadHeldOut) {
    const isSame = plots.length === 1 + hasRates() && Boolean(heldOut.size) === Boolean(hadHeldOut);
    if (isSame) update();
    else draw();
  }
  tools.hidden = !plots.length;
  return isNew;
}

// The points of a long run come in several answers.
async function load() {
  try {
    const response = await window.brushwork.fetch(`${box.dataset.chart}?after=${last}`);
    if (!response.ok) return;
    const metrics = await response.json();
    if (take(metrics.series)) load();
  } catch {
    setTimeout(load, RETRY_MS); // the server is being restarted
  }
}

document.addEventListener("htmx:load", (event) => {
  if (event.detail.elt.id !== "run-loss") return;
  const { points } = event.detail.elt.dataset;
  if (points) take(JSON.parse(points));
  else load();
});

function keep() {
  localStorage.setItem("chart", JSON.stringify({ smoothing: smoothing.value, log: logScale.checked }));
}
smoothing.addEventListener("input", () => {
  update();
  keep();
});
logScale.addEventListener("change", () => {
  draw();
  keep();
});
new ResizeObserver(() => {
  for (const plot of plots) plot.setSize({ width: box.clientWidth, height: plot.height });
}).observe(box);
for (const media of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
  matchMedia(media).addEventListener("change", draw);
}
new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
load();
