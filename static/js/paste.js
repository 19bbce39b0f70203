// Pasted settings: a text that is far too long is refused here, before it is sent and the form comes back without it.
(() => {
  const field = document.getElementById("pasted");
  if (!field) return;
  const error = document.getElementById("pasted-error");
  const longest = Number(field.dataset.longest);

  function say(text) {
    const line = document.getElementById("field-error").content.firstElementChild.cloneNode(true);
    line.lastChild.textContent = text;
    error.replaceChildren(line);
    field.setAttribute("aria-invalid", "true");
  }

  document.getElementById("use-pasted").addEventListener("click", (event) => {
    if (field.value.length <= longest) return;
    event.preventDefault();
    say(`These are no settings: this has ${field.value.length.toLocaleString("en")} characters.`);
    field.focus();
  });
  field.addEventListener("input", () => {
    error.replaceChildren();
    field.removeAttribute("aria-invalid");
  });
})();
