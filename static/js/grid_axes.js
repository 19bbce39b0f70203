// The form of a new grid: an axis of adapters offers the picker, whose choice is then added to its values instead of the
// stack, and a field of all images whose setting an axis varies is marked as not used.
(() => {
  let into = null; // the values that a choice is added to

  function offer() {
    for (const row of document.querySelectorAll("[data-axis-picker]")) {
      row.hidden = !row.closest("fieldset").querySelector("select").value.startsWith("adapter:");
    }
    const varied = [...document.querySelectorAll("#grid-axes select")].map((select) => select.value);
    for (const note of document.querySelectorAll("[data-varied]")) note.hidden = !varied.includes(note.dataset.varied);
  }

  function add(choice) {
    const version = choice.closest("li").querySelector("select")?.value;
    const name = version ? `${choice.value}@${version}` : choice.value;
    const values = document.getElementById(into);
    const before = values.value.trim().replace(/,$/, "");
    values.value = before ? `${before}, ${name}` : name;
    values.dispatchEvent(new Event("input", { bubbles: true }));
    choice.closest("[data-picker]").hidePopover();
  }

  document.addEventListener("click", (event) => {
    const opener = event.target.closest?.("[popovertarget=adapter-picker]:not([popovertargetaction])");
    if (opener) {
      into = opener.dataset.pickerInto ?? null;
      // an axis can vary what is in the stack already
      document.querySelector("[data-picker]").toggleAttribute("data-into-axis", Boolean(into));
    }
    const choice = event.target.closest?.("[data-picker] button[name=add]");
    if (!choice || !into) return;
    event.preventDefault();
    event.stopPropagation(); // htmx would put it into the stack
    add(choice);
  }, true);
  document.addEventListener("change", (event) => {
    if (event.target.closest?.("#grid-axes")) offer();
  });
  document.addEventListener("htmx:afterSettle", offer);
  offer();
})();
