// Links a slider and a number box to one weight; the box has a wider range than the slider. An empty box of the text
// encoders means the weight of the UNet, in whose row it is.
const parts = (element) => {
  const row = element.closest("[data-weight-row]");
  return row && {
    slider: row.querySelector("[data-weight-slider]"),
    number: row.querySelector("[data-weight-number]"),
  };
};
const { on } = window.brushwork;
const FINE = 0.01;
const parse = (text) => Number(text.replace(",", "."));

function set(number, value) {
  number.value = value === null ? "" : String(Math.round(value * 100) / 100);
  number.dispatchEvent(new Event("input", { bubbles: true }));
}

function followUnet(field) {
  const text = field.closest("[data-text-weight]") ?? field.closest("[data-weight-row]").querySelector("[data-text-weight]");
  if (!text) return;
  const { slider, number } = parts(text);
  const own = number.value.trim();
  if (!own) slider.value = parse(parts(text.parentElement).number.value) || 0;
  text.querySelector("[data-text-note]").textContent = own || "same weight";
}

document.addEventListener("input", (event) => {
  const row = event.target.matches("[data-weight-slider], [data-weight-number]") && parts(event.target);
  if (!row) return;
  if (event.target === row.slider) {
    row.number.value = String(Number(row.slider.value));
  } else {
    const value = parse(row.number.value);
    if (row.number.value.trim() && Number.isFinite(value)) row.slider.value = value;
  }
  row.number.removeAttribute("aria-invalid");
  followUnet(event.target);
});
on("keydown", "[data-weight-number]", (number, event) => {
  const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  const value = parse(number.value.trim() || parts(number).slider.value);
  if (!direction || !Number.isFinite(value)) return;
  event.preventDefault();
  const { least = -10, most = 10 } = number.dataset;
  set(number, Math.min(most, Math.max(least, value + direction * (event.shiftKey ? 10 : 1) * FINE)));
});
on("click", "[data-weight-reset]", (reset) => {
  set(parts(reset).number, reset.dataset.weightReset ? Number(reset.dataset.weightReset) : null);
});
on("dblclick", "[data-weight-slider]", (slider) => slider.closest("[data-weight-row]").querySelector("[data-weight-reset]")?.click());
