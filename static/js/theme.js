// Changes the theme without a reload; the server sets the cookie, as it does without this script.
const form = document.querySelector("[data-theme-form]");
form?.addEventListener("submit", async (event) => {
  const button = event.submitter;
  if (!button) return;
  event.preventDefault();
  document.documentElement.dataset.theme = button.value;
  for (const other of form.querySelectorAll("button")) {
    other.setAttribute("aria-pressed", String(other === button));
  }
  const shown = document.querySelector('[popovertarget="theme-menu"] use');
  shown?.setAttribute("href", button.querySelector("use").getAttribute("href"));
  form.hidePopover();
  // keepalive: the cookie is set also when the person is on another page by then
  await window.brushwork.post(form.action, { theme: button.value, back: "/" }, { redirect: "manual", keepalive: true });
});
