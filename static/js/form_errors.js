// The form of a new run: an error goes as soon as the value is right; a new one comes when a field
// is left. Each answer about the run has the errors of the whole form, by field, in `data-errors`.
const form = document.querySelector("[data-run-form]");
const { say } = window.brushwork;
const summary = document.getElementById("form-errors");
let isAnswered = true; // the errors are those of the form as it is now

const current = () => JSON.parse(document.getElementById("this-run").dataset.errors);
const shownError = (name) => document.getElementById(`${name}-error`);
const labelOf = (input) => input.labels[0]?.textContent.trim() ?? "";

function describe(input, id, isWrong) {
  const ids = new Set((input.getAttribute("aria-describedby") ?? "").split(" ").filter(Boolean));
  if (isWrong) ids.add(id);
  else ids.delete(id);
  if (ids.size) input.setAttribute("aria-describedby", [...ids].join(" "));
  else input.removeAttribute("aria-describedby");
  input.ariaInvalid = isWrong ? "true" : null;
}

function add(input, reason) {
  const error = document.getElementById("field-error").content.firstElementChild.cloneNode(true);
  error.id = `${input.id}-error`;
  error.lastChild.textContent = reason;
  const field = input.closest(".field");
  field.insertBefore(error, field.querySelector(".hint"));
  describe(input, error.id, true);
  const group = input.closest("[data-settings-group]");
  if (group) group.open = true;
  say(`${labelOf(input)}: ${reason}`);
}

function remove(name) {
  shownError(name).remove();
  const input = form.elements.namedItem(name);
  if (!input?.labels) return;
  describe(input, `${name}-error`, false);
  say(`${labelOf(input)} is valid now.`);
}

function updateSummary(errors) {
  if (!summary) return;
  const lines = [...summary.querySelectorAll("[data-problem]")];
  if (!lines.length) return; // an error without a field stays until the next try
  for (const line of lines) {
    const name = line.dataset.problem;
    line.hidden = !(name in errors) && !shownError(name)?.textContent.trim(); // some fields look after their own
  }
  summary.hidden = lines.every((line) => line.hidden);
}

function update() {
  if (!isAnswered) return;
  const errors = current();
  for (const shown of form.querySelectorAll('.field-error[id$="-error"]')) {
    const name = shown.id.replace(/-error$/, "");
    if (!(name in errors)) remove(name);
    else shown.lastChild.textContent = errors[name];
  }
  for (const [name, reason] of Object.entries(errors)) {
    const input = form.elements.namedItem(name);
    const isNew = !shownError(name) && input !== document.activeElement;
    if (isNew && input?.closest?.(".field")) add(input, reason);
  }
  updateSummary(errors);
}

form.addEventListener("input", (event) => {
  if (event.target.matches("[hx-post]")) isAnswered = false;
});
form.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "this-run") return;
  isAnswered = true;
  update();
});
// the answer may have come while the field had the focus
form.addEventListener("focusout", () => setTimeout(update));
