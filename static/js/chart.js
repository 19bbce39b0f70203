// Loss chart of a run: faint raw values, a bold debiased moving average; the run page brings new
// points with its other news (`data-points` of #run-loss).
(() => {
  const box = document.querySelector("[data-chart]");
  if (!box || !window.uPlot) return;
  const RETRY_MS = 2000;
  const HEIGHT = 206;
  const WHOLE_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000];
  const tools = document.querySelector("[data-chart-tools]");
  const smoothing = tools.querySelector("[data-chart-smoothing]");
  const logScale = tools.querySelector("[data-chart-log]");
  const steps = [];
  const raw = [];
  let last = 0;
  let plot = null;
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

  // One column of steps for both: the validation loss exists at step 0 and at checkpoints only
  function columns() {
    if (!heldOut.size) return [steps, raw, smoothed()];
    const bold = smoothed();
    const at = new Map(steps.map((step, index) => [step, index]));
    const all = [...new Set([...steps, ...heldOut.keys()])].sort((a, b) => a - b);
    const pick = (values) => all.map((step) => (at.has(step) ? values[at.get(step)] : null));
    const held = [0, 1, 2].map((place) => all.map((step) => heldOut.get(step)?.[place] ?? null));
    return [all, pick(raw), pick(bold), ...held];
  }

  function heldOutSeries() {
    if (!heldOut.size) return {};
    const stroke = color("--good");
    const edge = { stroke, width: 0, points: { show: false }, spanGaps: true, value: figure };
    return {
      series: [
        { label: "Validation", stroke, width: 2, dash: [6, 4], points: { show: true, size: 6 }, spanGaps: true, value: figure },
        { ...edge, label: "from" },
        { ...edge, label: "to" },
      ],
      bands: [{ series: [5, 4], fill: stroke.replace("rgb(", "rgba(").replace(")", ", 0.14)") }],
    };
  }

  const figure = (_, value) => (value == null ? "–" : value.toPrecision(3));

  function draw() {
    plot?.destroy();
    plot = null;
    if (steps.length < 2) return;
    const axis = { stroke: color("--ink-2"), font: `12px ${getComputedStyle(document.body).fontFamily}` };
    const lines = { grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    const accent = color("--accent");
    const held = heldOutSeries();
    plot = new uPlot(
      {
        width: box.clientWidth,
        height: HEIGHT,
        scales: { x: { time: false }, y: { distr: logScale.checked ? 3 : 1 } },
        cursor: { y: false, points: { size: 7 } },
        legend: { live: true },
        series: [
          { label: "Step", value: (_, value) => (value == null ? "–" : String(value)) },
          { label: "Loss", stroke: color("--line-strong"), alpha: 0.55, width: 1, points: { show: false }, value: figure },
          { label: "Smoothed", stroke: accent, width: 2, points: { show: false }, value: figure },
          ...(held.series ?? []),
        ],
        bands: held.bands ?? [],
        axes: [
          { ...axis, ...lines, grid: { show: false }, size: 28, space: 60, incrs: WHOLE_STEPS },
          { ...axis, ...lines, size: 48, values: (_, ticks) => ticks.map((tick) => (tick == null ? "" : Number(tick.toPrecision(3)))) },
        ],
      },
      columns(),
      box,
    );
  }

  function add(series) {
    const loss = series.loss ?? { steps: [], values: [] };
    loss.steps.forEach((step, index) => {
      if (step <= last) return;
      steps.push(step);
      raw.push(loss.values[index]);
    });
    return loss.steps.length > 0;
  }

  function addHeldOut(series) {
    const [loss, low, high] = ["held_out", "held_out_low", "held_out_high"].map((key) => series[key]);
    heldOut = new Map((loss?.steps ?? []).map((step, at) => [step, [loss, low, high].map((one) => one.values[at])]));
  }

  function take(series) {
    const hadHeldOut = heldOut.size;
    const isNew = add(series);
    addHeldOut(series);
    if (isNew || heldOut.size !== hadHeldOut) {
      last = Math.max(last, steps.at(-1) ?? 0);
      if (plot && Boolean(heldOut.size) === Boolean(hadHeldOut)) plot.setData(columns());
      else draw();
    }
    tools.hidden = steps.length < 2;
    return isNew;
  }

  // The points of a long run come in several answers.
  async function load() {
    try {
      const response = await fetch(`${box.dataset.chart}?after=${last}`);
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
    plot?.setData(columns());
    keep();
  });
  logScale.addEventListener("change", () => {
    draw();
    keep();
  });
  new ResizeObserver(() => plot?.setSize({ width: box.clientWidth, height: HEIGHT })).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  load();
})();
