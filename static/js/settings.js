// The settings of a new run: groups that fold, a search, "only what I changed" and resets. The groups
// that a person opened or closed are remembered by this browser.
const advanced = document.getElementById("advanced");
const { say, mark, toast, openAround } = window.brushwork;
const form = advanced.closest("form");
const tools = advanced.querySelector("[data-settings-tools]");
const search = document.getElementById("settings-search");
const only = document.getElementById("only-changed");
const resetAll = document.getElementById("reset-all");
const found = document.getElementById("settings-found");
const SAY_AFTER_MS = 700; // somebody who types is told once

const groups = () => [...advanced.querySelectorAll("[data-settings-group]")];
const settings = () => [...advanced.querySelectorAll("[data-setting]")];
const inputOf = (setting) => setting.querySelector("[name]");
const changed = () => settings().filter((setting) => setting.hasAttribute("data-changed"));
const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

// groups that fold

const keyOf = (details) => `open:${details.id}`;
const needsEye = (group) => group.querySelector("[data-changed], [aria-invalid]") !== null;

function restore(details) {
  const remembered = localStorage.getItem(keyOf(details));
  if (remembered === "1") details.open = true;
  if (remembered === "0" && details !== advanced && !needsEye(details)) details.open = false;
}

// search and "only what I changed"

const plain = (text) => text.toLowerCase().replace(/[^\p{L}\p{N}+]+/gu, " ").trim();
const wordsOf = () => plain(search.value).split(" ").filter(Boolean);
const isFiltering = () => only.getAttribute("aria-pressed") === "true";
const shown = new Set(); // names that "only what I changed" shows: one that is reset stays in place
const openBefore = new Map(); // what was open before a search opened what it found
let timer;

function textOf(setting) {
  const input = inputOf(setting);
  const hint = setting.querySelector(".hint").firstChild.textContent;
  const choices = [...(input.options ?? [])].map((option) => option.text);
  const group = setting.closest("[data-settings-group]").querySelector("h3").textContent;
  return plain([input.name, input.labels[0].textContent, hint, setting.dataset.terms, group, ...choices].join(" "));
}

// each word begins a word of the text; a longer one may also be within, as "batchsize"
function matches(setting, words) {
  const text = ` ${textOf(setting)}`;
  const joined = text.replaceAll(" ", "");
  return words.every((word) => text.includes(` ${word}`) || (word.length > 3 && joined.includes(word)));
}

function sentence(number, words) {
  const what = `${isFiltering() ? "changed " : ""}setting`;
  if (words.length) {
    const some = number ? `${plural(number, what)} ${number === 1 ? "matches" : "match"}` : `No ${what} matches`;
    return `${some} “${search.value.trim()}”.`;
  }
  return number ? `${plural(number, what)}.` : "Nothing is changed: all settings are those of the preset.";
}

function filter() {
  const words = wordsOf();
  const isOn = words.length > 0 || isFiltering();
  if (isOn && !openBefore.size) for (const group of groups()) openBefore.set(group.id, group.open);
  for (const setting of changed()) shown.add(inputOf(setting).name);
  for (const setting of settings()) {
    setting.hidden = isOn && !(matches(setting, words) && (!isFiltering() || shown.has(inputOf(setting).name)));
  }
  for (const group of groups()) {
    group.hidden = !group.querySelector("[data-setting]:not([hidden])");
    if (isOn) group.open = true;
    else if (openBefore.has(group.id)) group.open = openBefore.get(group.id);
  }
  if (!isOn) openBefore.clear();
  const number = (isFiltering() ? changed() : settings()).filter((setting) => !setting.hidden).length;
  found.hidden = !isOn;
  found.textContent = isOn ? sentence(number, words) : "";
}

function filterAndSay() {
  filter();
  clearTimeout(timer);
  timer = setTimeout(() => say(found.textContent || "All settings are shown."), SAY_AFTER_MS);
}

function showAll() {
  search.value = "";
  only.setAttribute("aria-pressed", "false");
  filterAndSay();
}

search.addEventListener("input", filterAndSay);
search.addEventListener("keydown", (event) => {
  if (event.key === "Enter") {
    event.preventDefault(); // not the start of the run
    advanced.querySelector("[data-setting]:not([hidden]) [name]")?.focus();
  } else if (event.key === "Escape" && search.value) {
    event.preventDefault();
    search.value = "";
    filterAndSay();
  }
});
only.addEventListener("click", () => {
  only.setAttribute("aria-pressed", String(!isFiltering()));
  shown.clear();
  filterAndSay();
});

// resets

function valueOf(input) {
  return input.type === "checkbox" ? (input.checked ? "on" : "") : input.value;
}

function setValue(input, value) {
  if (input.type === "checkbox") input.checked = value === "on";
  else input.value = value;
  mark(input);
}

// one request for all of them; a new optimizer brings the defaults of others
function tell(inputs) {
  const input = inputs.find((other) => other.name === "optimizer") ?? inputs[0];
  for (const type of ["input", "change"]) input.dispatchEvent(new Event(type, { bubbles: true }));
}

function resetOne(button) {
  const setting = button.closest("[data-setting]");
  const input = inputOf(setting);
  setValue(input, setting.dataset.default);
  input.focus();
  tell([input]);
  say(`${input.labels[0].textContent} is ${button.dataset.reset} again.`);
}

function resetEverything() {
  const before = changed().map((setting) => [inputOf(setting).name, valueOf(inputOf(setting))]);
  if (!before.length) return;
  const kept = form.elements.kept.value;
  for (const setting of changed()) setValue(inputOf(setting), setting.dataset.default);
  form.elements.kept.value = "{}";
  tell(before.map(([name]) => form.elements[name]));
  const undo = window.brushwork.makeButton("Undo", () => {
    for (const [name, value] of before) setValue(form.elements[name], value);
    form.elements.kept.value = kept;
    tell(before.map(([name]) => form.elements[name]));
    undo.closest(".toast").remove();
    resetAll.focus();
  });
  toast(`${plural(before.length, "setting")} reset.`).lastElementChild.before(undo);
}

resetAll.addEventListener("click", resetEverything);
form.addEventListener("click", (event) => {
  const button = event.target.closest?.("[data-reset]");
  if (button) resetOne(button);
  const summary = event.target.closest?.("summary");
  const details = summary?.parentElement;
  // a search opens groups too, which is not what a person chose
  const isChosen = details === advanced || (details?.matches("[data-settings-group]") && found.hidden);
  if (isChosen) localStorage.setItem(keyOf(details), details.open ? "0" : "1");
  const link = event.target.closest?.("[data-field-link]");
  const field = link && document.getElementById(link.hash.slice(1));
  if (!field) return;
  event.preventDefault();
  if (field.closest("[hidden]")) showAll();
  openAround(field);
  field.focus();
});

// what an answer or the Back button brings

function update() {
  resetAll.setAttribute("aria-disabled", String(!changed().length));
}

// the groups of an answer open as they are, before htmx gives the focus back
form.addEventListener("htmx:oobBeforeSwap", (event) => {
  if (event.detail.target.id !== "advanced-fields") return;
  for (const group of groups()) {
    const next = event.detail.fragment.querySelector(`#${group.id}`);
    if (next) next.open = group.open || next.querySelector("[aria-invalid]") !== null;
  }
});
form.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "this-run") return;
  if (!found.hidden) filter();
  update();
});
form.addEventListener("input", update);
addEventListener("pageshow", update);

tools.hidden = false;
restore(advanced);
groups().forEach(restore);
