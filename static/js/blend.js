// Several adapters, blended: moving one weight scales those of the others that are on, so that the sum stays. The fields
// hold what is sent and rendered. A weight above the sum leaves the others at 0; they come back below it.
const PLACES = 1000; // weights are whole thousandths here, so that their sum is exact
const parse = (text) => (text.trim() ? Number(text.replace(",", ".")) : NaN);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const rows = () => [...document.querySelectorAll("#stack > [data-weight-row]")];
const numbers = () =>
  rows()
    .filter((row) => row.querySelector(".switch input").checked)
    .map((row) => row.querySelector("[data-weight-number]"));
const isBlend = () => Boolean(document.querySelector("[data-mix][value=blend]:checked"));

let held = null; // the fields of the weights, their sum and their shares of it; null: some weight is no number
let scales = false;

function hold() {
  // what a browser without scripts sends, for the server to hold the sum
  document.querySelectorAll("[data-held]").forEach((field) => field.remove());
  const fields = numbers();
  const shares = fields.map((field) => parse(field.value));
  held = shares.every(Number.isFinite) ? { fields, shares, total: sum(shares) } : null;
  showSum();
}

function showSum() {
  const shown = document.querySelector("[data-mix-sum]");
  if (!shown) return;
  const values = numbers().map((field) => parse(field.value));
  shown.textContent = values.every(Number.isFinite) ? `The weights add up to ${Math.round(sum(values) * PLACES) / PLACES}` : "";
}

// the weights of the others for this rest of the sum; their shares say how it is divided
function divide(shares, rest) {
  const total = sum(shares);
  const isMixed = shares.some((share) => share > 0) && shares.some((share) => share < 0);
  if (isMixed) return shares.map((share) => share + (rest - total) / shares.length);
  if (total === 0) return shares.map(() => Math.max(0, rest) / shares.length);
  return shares.map((share) => share * Math.max(0, rest / total));
}

// whole thousandths; what rounding leaves goes to the largest
function round(weights) {
  const whole = weights.map((weight) => Math.round(weight * PLACES));
  const sizes = weights.map(Math.abs);
  const largest = sizes.indexOf(Math.max(...sizes));
  whole[largest] += Math.round(sum(weights) * PLACES) - sum(whole);
  return whole.map((weight) => weight / PLACES);
}

function scale(at, value) {
  const others = held.fields.map((_, index) => index).filter((index) => index !== at);
  const weights = divide(others.map((index) => held.shares[index]), held.total - value);
  held.shares[at] = value;
  if (weights.some((weight) => weight !== 0)) others.forEach((index, place) => (held.shares[index] = weights[place]));
  scales = true;
  round(weights).forEach((weight, place) => {
    const field = held.fields[others[place]];
    field.value = String(weight);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  });
  scales = false;
}

document.addEventListener("input", (event) => {
  const row = event.target.matches("[data-weight-slider], [data-weight-number]") && event.target.closest("#stack > [data-weight-row]");
  if (!row || scales || event.target.closest("[data-text-weight]")) return;
  const field = row.querySelector("[data-weight-number]");
  const at = held?.fields.indexOf(field) ?? -1;
  const value = parse(field.value);
  if (!isBlend() || at < 0) return hold();
  if (Number.isFinite(value) && held.fields.length > 1) scale(at, value);
  showSum();
});
window.brushwork.on("change", "[data-mix], #stack .switch input", hold);
document.addEventListener("htmx:afterSettle", () => {
  if (!held?.fields.every((field) => field.isConnected) || held.fields.length !== numbers().length) hold();
});
addEventListener("pageshow", hold);
