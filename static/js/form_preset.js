// The name of a preset on the form of a new run: Enter saves the preset and does not start the run.
(() => {
  const field = document.getElementById("preset_name");
  if (!field) return;
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    document.getElementById("save-form-preset").click();
  });
  field.addEventListener("input", () => {
    document.getElementById("preset_name-error").replaceChildren();
    field.removeAttribute("aria-invalid");
  });
})();
