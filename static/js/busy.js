// `data-busy` on a form: its button says that work goes on, and a second click does nothing.
(() => {
  document.addEventListener("submit", (event) => {
    const form = event.target.closest("[data-busy]");
    if (!form) return;
    if (form.dataset.sent) return event.preventDefault();
    form.dataset.sent = "true";
    event.submitter?.setAttribute("aria-busy", "true");
  });
  // a page that comes back from the browser's memory starts anew
  window.addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("[data-busy][data-sent]")) {
      delete form.dataset.sent;
      form.querySelector("[aria-busy]")?.removeAttribute("aria-busy");
    }
  });
})();
