// `data-busy` on a form: its button is marked busy after a submit, and a second click does nothing.
window.brushwork.on("submit", "[data-busy]", (form, event) => {
  if (form.dataset.sent) return event.preventDefault();
  form.dataset.sent = "true";
  event.submitter?.setAttribute("aria-busy", "true");
});
// a page restored from the back-forward cache starts fresh
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("[data-busy][data-sent]")) {
    delete form.dataset.sent;
    form.querySelector("[aria-busy]")?.removeAttribute("aria-busy");
  }
});
