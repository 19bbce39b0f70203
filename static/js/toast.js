// Short messages at the bottom: `toast("Saved")`, errors of htmx requests, and a close button. `make`, `makeButton` and
// `on` are for all scripts.
const toasts = document.getElementById("toasts");

// an element with its properties and its children
function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function makeButton(words, act, className = "") {
  const button = make("button", { type: "button", className, textContent: words });
  button.addEventListener("click", act);
  return button;
}

// listens on the whole page, also for what comes later: `act` gets what matches the selector, and the event
function on(type, selector, act) {
  document.addEventListener(type, (event) => {
    const element = event.target.closest?.(selector);
    if (element) act(element, event);
  });
}

function toast(text) {
  const close = make("button", { type: "button", textContent: "Close" });
  close.dataset.closeToast = "";
  const box = make("div", { className: "toast" }, make("p", { textContent: text }), close);
  toasts.append(box);
  return box;
}

on("click", "[data-close-toast]", (button) => {
  const box = button.closest(".toast");
  if (box.contains(document.activeElement)) document.getElementById("content").focus({ preventScroll: true });
  box.remove();
});
// the toast of an Undo goes with what it did, and the focus in it
document.addEventListener("htmx:afterSettle", (event) => {
  const isUndo = event.detail.requestConfig?.elt?.closest?.(".toast");
  if (isUndo && document.activeElement === document.body) document.getElementById("content").focus({ preventScroll: true });
});
// polling fragments retry by themselves (poll.js); only failed actions of the user need a message
const isPoll = (event) => event.detail.requestConfig.triggeringEvent?.type === "poll";
document.addEventListener("htmx:responseError", (event) => {
  if (isPoll(event)) return;
  const answer = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html");
  const words = answer.querySelector(".notice p")?.textContent.trim();
  const box = toast(words || "The request failed. Try again in a moment.");
  const link = answer.querySelector(".notice a");
  if (link) box.lastElementChild.before(link);
});
document.addEventListener("htmx:sendError", (event) => {
  if (event.detail.requestConfig.verb !== "get" && !isPoll(event)) toast("Brushwork cannot be reached. Nothing was changed.");
});
// a message from the URL is shown once: a reload does not show it again
const address = new URL(location.href);
if (address.searchParams.has("undo")) {
  address.searchParams.delete("undo");
  history.replaceState(history.state, "", address);
}
// a page that follows on a form begins at its Undo, else at the place in its address, at what it says or what is wrong,
// else at the content
window.addEventListener("load", () => {
  const undo = toasts.querySelector("form button");
  if (undo) undo.focus({ preventScroll: true });
  if (document.activeElement !== document.body) return;
  (document.querySelector("[data-focus]") ?? document.querySelector("[aria-invalid=true]"))?.focus();
  const isLost = toasts.firstElementChild && document.activeElement === document.body;
  if (isLost) document.getElementById("content").focus({ preventScroll: true });
});
window.brushwork = { toast, make, makeButton, on };
