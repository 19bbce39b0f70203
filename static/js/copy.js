// `data-copy="text"`: a click copies the text; the element shows “Copied” for a moment.
const SHOWN_MS = 1600;
const busy = new WeakSet();

// without permission, or on a page without TLS, browsers still copy what is selected in a field
function copySelected(element) {
  const properties = { className: "visually-hidden", readOnly: true, value: element.dataset.copy };
  const field = window.brushwork.make("textarea", properties);
  element.after(field); // inside the same dialog, so that it can be focused
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  element.focus();
  return copied;
}

async function copy(element) {
  if (busy.has(element)) return;
  const words = element.innerHTML;
  try {
    await navigator.clipboard.writeText(element.dataset.copy);
  } catch {
    if (!copySelected(element)) return window.brushwork.toast("This browser did not allow copying.");
  }
  busy.add(element);
  const width = element.getBoundingClientRect().width;
  element.style.setProperty("min-width", `${width}px`);
  element.textContent = "Copied";
  element.setAttribute("aria-live", "polite");
  setTimeout(() => {
    element.innerHTML = words;
    element.style.removeProperty("min-width");
    busy.delete(element);
  }, SHOWN_MS);
}

window.brushwork.on("click", "[data-copy]", copy);
