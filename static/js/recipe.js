// The form of a new run: marks settings that differ from the preset, remembers if "Advanced" is open.
(() => {
  const form = document.querySelector("[data-recipe]");
  if (!form) return;

  function mark(input) {
    const setting = input.closest("[data-setting]");
    if (!setting) return;
    const value = input.type === "checkbox" ? (input.checked ? "on" : "") : input.value.trim();
    setting.toggleAttribute("data-changed", value !== setting.dataset.default);
  }
  form.addEventListener("input", (event) => mark(event.target));

  // the Back button restores the values, but not their marks
  addEventListener("pageshow", () => form.querySelectorAll("[data-setting] [name]").forEach(mark));

  for (const details of form.querySelectorAll("details[data-remember]")) {
    const key = `open:${details.dataset.remember}`;
    if (sessionStorage.getItem(key) === "1") details.open = true;
    details.addEventListener("toggle", () => sessionStorage.setItem(key, details.open ? "1" : "0"));
  }

  form.addEventListener("click", (event) => {
    // a link in the error summary may point into the closed settings
    const target = event.target.closest?.(".error-list a")?.hash;
    const field = target && form.querySelector(target);
    if (!field) return;
    field.closest("details")?.setAttribute("open", "");
    event.preventDefault();
    field.focus();
  });

  document.querySelector("[data-focus]")?.focus();
})();
