// The strip of weights: an image of it is shown in place of the result, by a click or by moving the weight, with no
// request. It goes out of date when anything but this weight is changed.
(() => {
  const NEAR = 0.126; // half the distance between two weights of the strip, and what rounding adds
  const EXACT = 0.0001;
  const weights = () => document.querySelector("[data-strip]:not(.old)");
  const rowOf = (strip) => document.getElementById(`weight-${strip.dataset.strip}`)?.closest("[data-weight-row]");

  function show(strip, button) {
    for (const other of strip.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
    const result = document.querySelector("#result .result-images");
    const image = result?.querySelector(".comparison-side img, .drawn img");
    if (!image) return;
    const label = `${strip.dataset.name} ${Number(button.dataset.stripWeight).toFixed(2)}`;
    image.src = button.dataset.src;
    image.alt = label;
    const link = image.closest("a");
    if (link) link.href = button.dataset.src;
    const shown = result.querySelector(".comparison-label, figcaption span");
    if (shown) shown.textContent = label;
    result.querySelector(".old")?.classList.remove("old");
    result.parentElement.classList.add("shows-strip"); // what can be done with the result is not for this image
    document.getElementById("result-told").textContent = label;
  }

  // "exact" or "near" when an image of the strip is shown for the weight in this field; null: none
  function showWeight(field) {
    const strip = weights();
    if (!strip) return null;
    const row = rowOf(strip);
    if (!row || field.closest("[data-weight-row]") !== row || !field.matches("[data-weight-slider], [data-weight-number]")) {
      strip.classList.add("old");
      return null;
    }
    const value = Number(field.value.replace(",", "."));
    const off = (button) => Math.abs(Number(button.dataset.stripWeight) - value);
    const [nearest] = [...strip.querySelectorAll("button")].sort((a, b) => off(a) - off(b));
    if (!nearest || !(off(nearest) <= NEAR)) return null;
    show(strip, nearest);
    return off(nearest) < EXACT ? "exact" : "near";
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-strip-weight]");
    if (!button) return;
    const strip = button.closest("[data-strip]");
    const number = rowOf(strip)?.querySelector("[data-weight-number]");
    if (!number || strip.classList.contains("old")) return show(strip, button);
    number.value = String(Number(button.dataset.stripWeight));
    number.dispatchEvent(new Event("input", { bubbles: true }));
  });

  window.brushwork = Object.assign(window.brushwork ?? {}, { showWeight });
})();
