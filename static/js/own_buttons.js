// The fields of the form of a new run that have buttons of their own, pasted settings and the name of a preset: their errors
// go as soon as they are edited. A text that is far too long is refused here, before it is sent and the form comes back
// without it.
const field = document.getElementById("pasted");
const errorOf = (input) => document.getElementById(`${input.id}-error`);

for (const input of [field, document.getElementById("preset_name")]) {
  input.addEventListener("input", () => {
    errorOf(input).replaceChildren();
    input.removeAttribute("aria-invalid");
  });
}
document.getElementById("use-pasted").addEventListener("click", (event) => {
  const { length } = field.value;
  if (length <= Number(field.dataset.longest)) return;
  event.preventDefault();
  const line = document.getElementById("field-error").content.firstElementChild.cloneNode(true);
  line.lastChild.textContent = `These are no settings: this has ${length.toLocaleString("en")} characters.`;
  errorOf(field).replaceChildren(line);
  field.setAttribute("aria-invalid", "true");
  field.focus();
});
