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
  // An answer to what the form was before the last edit is dropped: another one follows it.
  let edits = 0;
  let lacksFields = false;
  form.addEventListener("input", (event) => {
    mark(event.target);
    if (event.target.matches("[hx-post]")) edits += 1;
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
