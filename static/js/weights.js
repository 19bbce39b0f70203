// Links a slider and a number box to one weight; the box has a wider range than the slider. An empty box of the text
// encoders means the weight of the UNet, in whose row it is.
const parts = (element) => {
  const row = element.closest("[data-weight-row]");
  return row && {
    slider: row.querySelector("[data-weight-slider]"),
    number: row.querySelector("[data-weight-number]"),
  };
};
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
document.addEventListener("keydown", (event) => {
  if (!event.target.matches?.("[data-weight-number]")) return;
  const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  const value = parse(event.target.value.trim() || parts(event.target).slider.value);
  if (!direction || !Number.isFinite(value)) return;
  event.preventDefault();
  const { least = -10, most = 10 } = event.target.dataset;
  set(event.target, Math.min(most, Math.max(least, value + direction * (event.shiftKey ? 10 : 1) * FINE)));
});
document.addEventListener("click", (event) => {
  const reset = event.target.closest?.("[data-weight-reset]");
  if (reset) set(parts(reset).number, reset.dataset.weightReset ? Number(reset.dataset.weightReset) : null);
});
document.addEventListener("dblclick", (event) => {
  if (!event.target.matches("[data-weight-slider]")) return;
  event.target.closest("[data-weight-row]").querySelector("[data-weight-reset]")?.click();
});
