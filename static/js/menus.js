// `data-menu` on a <details> whose content lies above the page: Escape, a click outside and a focus
// elsewhere close it, as browsers do with what has `popover`.
const openMenus = () => document.querySelectorAll("details[data-menu][open]");

function closeOthers(event) {
  const path = event.composedPath(); // also of what the click has removed
  for (const menu of openMenus()) if (!path.includes(menu)) menu.open = false;
}

document.addEventListener("click", closeOthers);
document.addEventListener("focusin", closeOthers);
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.defaultPrevented) return;
  for (const menu of openMenus()) {
    event.preventDefault();
    menu.open = false;
    menu.querySelector("summary").focus();
  }
});
