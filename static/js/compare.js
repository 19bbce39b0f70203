// Comparisons of two images: side by side, with a slider, or in turn (flicker). The slider is a range input over the
// images, so it works by mouse, touch and keyboard. All comparisons inside `data-comparisons` share mode and position;
// a group that htmx puts in place of another one keeps them.
const FLICKER_MS = 800; // at most three changes a second are safe (WCAG 2.3.1); these are fewer than two
const CHOICES = "[data-comparison-modes]";
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const known = new WeakMap();
let last = null;

class Comparisons {
  constructor(group, modes) {
    this.group = group;
    this.modes = modes;
    this.auto = modes.querySelector("[data-flicker-auto]");
    this.button = modes.querySelector("[data-flicker-switch]");
    this.told = modes.querySelector("[data-flicker-told]");
    this.name();
    modes.hidden = false;
    modes.addEventListener("change", (event) => {
      if (event.target === this.auto) this.flicker();
      else this.choose(event.target.value);
    });
    this.button.addEventListener("click", () => this.switch());
    group.addEventListener("input", (event) => {
      if (event.target.matches("[data-comparison-slider]")) this.move(Number(event.target.value));
    });
    this.auto.checked = last ? last.auto.checked : !calm.matches;
    this.show(last ? last.group.dataset.shown : "a");
    this.move(last ? last.position : 50);
    this.choose(last ? last.mode : modes.querySelector("input:checked").value); // a restored page keeps its choice
  }

  // each group has its own radio buttons, also where several are on a page
  name() {
    const name = `comparison-mode-${document.querySelectorAll("[data-comparison-modes]:not([hidden])").length}`;
    for (const radio of this.modes.querySelectorAll("[type=radio]")) radio.name = name;
  }

  get sliders() {
    return this.group.querySelectorAll("[data-comparison-slider]");
  }

  move(value) {
    this.position = value;
    this.group.style.setProperty("--position", `${value}%`);
    for (const slider of this.sliders) {
      slider.value = value;
      const { a, b } = slider.dataset;
      slider.setAttribute("aria-valuetext", `${value} % ${a}, ${100 - value} % ${b}`);
    }
  }

  choose(mode) {
    this.mode = this.group.dataset.mode = mode;
    last = this;
    this.modes.querySelector(`[value="${mode}"]`).checked = true;
    for (const slider of this.sliders) slider.hidden = mode !== "slider";
    // under the slider a link cannot be clicked, so it is no stop of the Tab key either
    for (const link of this.group.querySelectorAll("[data-comparison] .comparison-side a")) link.tabIndex = mode === "slider" ? -1 : 0;
    this.modes.querySelector("[data-flicker]").hidden = mode !== "flicker";
    this.button.disabled = mode !== "flicker"; // so its shortcut does nothing
    this.flicker();
  }

  flicker() {
    clearInterval(this.timer);
    if (this.mode !== "flicker" || !this.auto.checked) return;
    this.timer = setInterval(() => {
      if (this.group.isConnected) this.show(this.other);
      else clearInterval(this.timer);
    }, FLICKER_MS);
  }

  get other() {
    return this.group.dataset.shown === "a" ? "b" : "a";
  }

  show(side) {
    this.group.dataset.shown = side;
    this.told.textContent = ""; // spoken only when a person switches
  }

  // by hand: the images no longer change by themselves
  switch() {
    this.auto.checked = false;
    this.flicker();
    this.show(this.other);
    this.told.textContent = this.sliders[0].dataset[this.group.dataset.shown];
  }
}

function begin(group) {
  const modes = group.querySelector(CHOICES) ?? document.querySelector(CHOICES);
  if (known.has(group) || !modes || !group.querySelector("[data-comparison]")) return;
  known.set(group, new Comparisons(group, modes));
}

const beginAll = () => document.querySelectorAll("[data-comparisons]").forEach(begin);
document.addEventListener("htmx:afterSwap", beginAll); // at once, so that nothing jumps
// the result of a tool grows in view, while it has the focus
document.addEventListener("htmx:afterSettle", (event) => event.target.closest?.("[id^=tool-job]:focus")?.scrollIntoView({ block: "nearest" }));
beginAll();
