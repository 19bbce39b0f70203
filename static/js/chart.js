// The loss of a run: raw values faint, their debiased moving average bold; asks on while it trains.
(() => {
  const box = document.querySelector("[data-chart]");
  if (!box || !window.uPlot) return;
  const EVERY_MS = 2000;
  const HEIGHT = 206;
  const WHOLE_STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000];
  const tools = document.querySelector("[data-chart-tools]");
  const smoothing = tools.querySelector("[data-chart-smoothing]");
  const logScale = tools.querySelector("[data-chart-log]");
  const steps = [];
  const raw = [];
  let last = 0;
  let plot = null;

  const settings = JSON.parse(localStorage.getItem("chart") ?? "{}");
  smoothing.value = settings.smoothing ?? 0.95;
  logScale.checked = settings.log ?? false;

  function colour(name) {
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

  const figure = (_, value) => (value == null ? "–" : value.toPrecision(3));

  function draw() {
    plot?.destroy();
    plot = null;
    if (steps.length < 2) return;
    const axis = { stroke: colour("--ink-2"), font: `12px ${getComputedStyle(document.body).fontFamily}` };
    const lines = { grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const accent = colour("--accent");
    plot = new uPlot(
      {
        width: box.clientWidth,
        height: HEIGHT,
        scales: { x: { time: false }, y: { distr: logScale.checked ? 3 : 1 } },
        cursor: { y: false, points: { size: 7 } },
        legend: { live: true },
        series: [
          { label: "Step", value: (_, value) => (value == null ? "–" : String(value)) },
          { label: "Loss", stroke: colour("--line-strong"), alpha: 0.55, width: 1, points: { show: false }, value: figure },
          { label: "Smoothed", stroke: accent, width: 2, points: { show: false }, value: figure },
        ],
        axes: [
          { ...axis, ...lines, grid: { show: false }, size: 28, space: 60, incrs: WHOLE_STEPS },
          { ...axis, ...lines, size: 48, values: (_, ticks) => ticks.map((tick) => (tick == null ? "" : Number(tick.toPrecision(3)))) },
        ],
      },
      [steps, raw, smoothed()],
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

  const isActive = () => document.querySelector(box.dataset.chartState)?.dataset.active === "true";

  async function ask() {
    const wasActive = isActive();
    try {
      if (!document.hidden) {
        const response = await fetch(`${box.dataset.chart}?after=${last}`);
        if (response.ok) {
          const metrics = await response.json();
          if (add(metrics.series)) {
            last = Math.max(last, steps.at(-1) ?? 0);
            if (plot) plot.setData([steps, raw, smoothed()]);
            else draw();
          }
          tools.hidden = steps.length < 2;
        }
      }
    } catch {
      // the server is being restarted; the next question finds it again
    }
    if (wasActive) setTimeout(ask, EVERY_MS);
  }

  function keep() {
    localStorage.setItem("chart", JSON.stringify({ smoothing: smoothing.value, log: logScale.checked }));
  }
  smoothing.addEventListener("input", () => {
    plot?.setData([steps, raw, smoothed()]);
    keep();
  });
  logScale.addEventListener("change", () => {
    draw();
    keep();
  });
  new ResizeObserver(() => plot?.setSize({ width: box.clientWidth, height: HEIGHT })).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  new MutationObserver(draw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  ask();
})();
