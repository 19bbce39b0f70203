// The form of a new run: marks settings that differ from the preset, and drops answers that came
// too late. `brushwork.say(text)` tells it to screen readers, once.
const form = document.querySelector("[data-run-form]");
form.dataset.runForm = "scripted"; // shows what works with scripts only
const status = document.getElementById("form-status");
const SAY_MS = 300; // what happens together is said together

let said = [];
let timer;
function say(text) {
  said.push(text);
  clearTimeout(timer);
  timer = setTimeout(() => {
    status.textContent = said.join(" ");
    said = [];
  }, SAY_MS);
}
function mark(input) {
  const setting = input.closest("[data-setting]");
  if (!setting) return;
  const value = input.type === "checkbox" ? (input.checked ? "on" : "") : input.value.trim();
  setting.toggleAttribute("data-changed", value !== setting.dataset.default);
}
Object.assign(window.brushwork, { say, mark });

// An answer to what the form was before the last edit is dropped: another one follows it.
let edits = 0;
let lacksFields = false;
form.addEventListener("input", (event) => {
  mark(event.target);
  if (event.target.matches("[hx-post]")) edits += 1;
  // its request may wait in the queue, where a later one takes its place
  lacksFields ||= event.target.matches("[hx-post*='part=fields']");
});
form.addEventListener("htmx:configRequest", (event) => {
  if (lacksFields && !event.detail.path.includes("?")) event.detail.path += "?part=fields";
  lacksFields = false;
});
form.addEventListener("htmx:beforeSend", (event) => {
  event.detail.xhr.edits = edits;
});
form.addEventListener("htmx:beforeSwap", (event) => {
  if (event.target.id !== "this-run" || event.detail.xhr.edits === edits) return;
  event.detail.shouldSwap = false;
  lacksFields ||= event.detail.pathInfo.requestPath.includes("part=fields");
});

// of an answer, only what is new is told
const plan = () => document.getElementById("this-run");
const warnings = () => [...plan().querySelectorAll("[data-warning]")].map((text) => text.textContent.trim());
let last = { says: plan().dataset.says, warnings: warnings() };
let tellsKept = false; // another preset was chosen: say what stays as it was
form.addEventListener("change", (event) => {
  if (event.target.name === "preset") tellsKept = true;
});
form.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "this-run") return;
  const now = { says: plan().dataset.says, warnings: warnings() };
  if (now.says !== last.says) say(now.says);
  for (const text of now.warnings) if (!last.warnings.includes(text)) say(`Warning: ${text}`);
  last = now;
  // the button of a warning is gone with what it put right
  if (event.detail.requestConfig.triggeringEvent?.type === "captions-changed" && document.activeElement === document.body) {
    document.getElementById("this-run-title").focus({ preventScroll: true });
  }
  const kept = document.getElementById("kept").textContent;
  if (tellsKept && kept) say(kept);
  tellsKept = false;
});

// a base model that is added in the other tab is chosen
const bases = () => [...form.elements.base_model.options].map((option) => option.value);
let known = null;
form.addEventListener("click", (event) => {
  if (event.target.closest("#base-field a")) known = bases();
});
addEventListener("focus", () => known && htmx.trigger("#base_model", "change"));
form.addEventListener("htmx:afterSettle", (event) => {
  const added = known && event.target.id === "this-run" && bases().find((base) => !known.includes(base));
  if (!added) return;
  known = null;
  form.elements.base_model.value = added;
  htmx.trigger("#base_model", "change");
});

// the Back button restores the values, but not their marks
addEventListener("pageshow", () => form.querySelectorAll("[data-setting] [name]").forEach(mark));
