// Links a slider and a number box to one weight; the box has a wider range than the slider.
(() => {
  const parts = (element) => {
    const row = element.closest("[data-weight-row]");
    return row && {
      slider: row.querySelector("[data-weight-slider]"),
      number: row.querySelector("[data-weight-number]"),
    };
  };
  const FINE = 0.01;

  function set(number, value) {
    number.value = String(Math.round(value * 100) / 100);
    number.dispatchEvent(new Event("input", { bubbles: true }));
  }

  document.addEventListener("input", (event) => {
    const row = event.target.matches("[data-weight-slider], [data-weight-number]") && parts(event.target);
    if (!row) return;
    if (event.target === row.slider) {
      row.number.value = String(Number(row.slider.value));
    } else {
      const value = Number(row.number.value.replace(",", "."));
      if (row.number.value.trim() && Number.isFinite(value)) row.slider.value = value;
    }
    row.number.removeAttribute("aria-invalid");
  });
  document.addEventListener("keydown", (event) => {
    if (!event.target.matches?.("[data-weight-number]")) return;
    const direction = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    const value = Number(event.target.value.replace(",", "."));
    if (!direction || !Number.isFinite(value)) return;
    event.preventDefault();
    set(event.target, Math.min(10, Math.max(-10, value + direction * (event.shiftKey ? 10 : 1) * FINE)));
  });
  document.addEventListener("click", (event) => {
    const reset = event.target.closest?.("[data-weight-reset]");
    if (reset) set(parts(reset).number, Number(reset.dataset.weightReset));
  });
  document.addEventListener("dblclick", (event) => {
    if (!event.target.matches("[data-weight-slider]")) return;
    event.target.closest("[data-weight-row]").querySelector("[data-weight-reset]")?.click();
  });
})();
