// A part that comes again keeps what a person had in it: folds with an id stay open, and where what had the focus is
// gone, the first field that is wrong gets it, else the part's element with `data-takes-focus`.
let open = [];
let hadFocus = false;

document.addEventListener("htmx:beforeSwap", (event) => {
  const part = event.detail.target;
  open = [...part.querySelectorAll("details[id][open]")].map((fold) => fold.id);
  hadFocus = part.contains(document.activeElement);
});
document.addEventListener("htmx:afterSwap", (event) => {
  const part = document.getElementById(event.detail.target.id);
  if (!part) return;
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (!hadFocus || part.contains(document.activeElement)) return;
  (part.querySelector("[aria-invalid=true]") ?? part.querySelector("[data-takes-focus]"))?.focus();
});
