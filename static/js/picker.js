// The picker of adapters: arrow keys walk between its search and its choices, Enter in the search adds the first one that
// it found. A button with `data-picker-into` has the choice written into that field, in place of the stack; a longer field is
// a list. Closing it gives the focus back to its button, as popovers do; where that is gone, the focus stays near.
const SIGNS = /[@,:;]/; // of a reference with a version, and of lists
let into = null; // the field that a choice is written into
let opener = null;
const STEPS = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 };
const choices = (picker) => [...picker.querySelectorAll("button[name=add]")].filter((choice) => choice.checkVisibility());

function walk(event, picker) {
  const search = picker.querySelector("[data-find]");
  const isSearch = event.target === search;
  if (!STEPS[event.key] || (isSearch && event.key !== "ArrowDown")) return;
  const stops = [search, ...choices(picker)];
  const at = stops.indexOf(event.target);
  if (at < 0) return; // the version of a choice
  event.preventDefault();
  stops[Math.min(stops.length - 1, at + STEPS[event.key])].focus();
}

function addFound(event, picker) {
  const words = event.target.value.trim();
  const shown = picker.querySelector("[data-words]")?.dataset.words;
  if (words && shown !== words) return; // it is searched first
  event.preventDefault();
  if (words) choices(picker)[0]?.click();
}

// not in the page itself: without scripts the picker is always open, and the page would begin there
document.addEventListener("beforetoggle", (event) => {
  if (event.newState === "open" && event.target.matches?.("[data-picker]")) event.target.querySelector("[data-find]").autofocus = true;
}, true);

document.addEventListener("keydown", (event) => {
  const picker = event.target.closest?.("[data-picker]");
  if (!picker) return;
  if (event.key === "Enter" && event.target.matches("[data-find]")) addFound(event, picker);
  else walk(event, picker);
}, true);

document.addEventListener("htmx:afterSwap", (event) => {
  // new choices, while one of the old ones had the focus
  if (event.target.id !== "add-choices" || document.activeElement !== document.body) return;
  event.target.closest("[data-picker]").querySelector("[data-find]").focus();
});

document.addEventListener("htmx:afterSettle", (event) => {
  // an adapter was added or removed, and what had the focus went with it
  if (event.detail.target?.id !== "stack" || document.activeElement !== document.body) return;
  const stops = document.querySelectorAll("#stack > .adapter-row > .adapter-weight [data-weight-slider], #add-adapter");
  stops[stops.length - 1]?.focus();
});

// as people call it, unless others are called so too
function referenceTo(choice) {
  const name = choice.querySelector("strong").textContent;
  const same = choices(choice.closest("[data-picker]")).filter((other) => other.querySelector("strong").textContent === name);
  const version = choice.closest("li").querySelector("select")?.value;
  return (SIGNS.test(name) || same.length > 1 ? choice.value : name) + (version ? `@${version}` : "");
}

function write(choice) {
  const before = into.matches("textarea") ? into.value.trim().replace(/,$/, "") : "";
  into.value = before ? `${before}, ${referenceTo(choice)}` : referenceTo(choice);
  into.dispatchEvent(new Event("input", { bubbles: true }));
  opener.dispatchEvent(new Event("picked"));
  into.closest(".tool-row")?.querySelector("[data-picked]").replaceChildren(choice.querySelector(".thumb").cloneNode(true));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest?.("[popovertarget=adapter-picker]:not([popovertargetaction])");
  if (button) {
    opener = button;
    into = document.getElementById(opener.dataset.pickerInto ?? "");
    // an axis can vary what is in the stack already
    document.querySelector("[data-picker]").toggleAttribute("data-into-axis", Boolean(into));
  }
  const choice = event.target.closest?.("[data-picker] button[name=add]");
  if (!choice) return;
  choice.closest("[data-picker]").hidePopover();
  if (!into) return;
  event.preventDefault();
  event.stopPropagation(); // htmx would put it into the stack
  write(choice);
}, true);

window.brushwork.on("input", ".tool-row .field:has([list])", (field) => {
  field.closest(".tool-row").querySelector("[data-picked]").replaceChildren();
});
