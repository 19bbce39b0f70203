// A blind test: an answer brings the next pair without a reload, and both of its images are decoded before either is shown.
// Z looks closer at the same place of both.
const { on } = window.brushwork;
const told = document.querySelector("[data-blind-told]");
const MOVE = 10; // percent of the image, for one arrow key
const ARROWS = { ArrowLeft: [-MOVE, 0], ArrowRight: [MOVE, 0], ArrowUp: [0, -MOVE], ArrowDown: [0, MOVE] };
let isSending = false;
let place = [50, 50]; // the point that is looked at, in percent

const current = () => document.getElementById("blind");
const closer = () => current().querySelector("[data-closer]");
const decoded = (image) => image.decode().catch(() => {}); // a broken one shows its alternative text

async function show(part) {
  const pair = part.querySelector("[data-blind-pair]");
  if (!pair) return;
  await Promise.all([...pair.querySelectorAll("img")].map(decoded));
  pair.dataset.ready = "true";
  part.querySelector("[data-blind-closer]").hidden = false;
}

async function send(form, button) {
  if (isSending) return;
  isSending = true;
  button?.setAttribute("aria-busy", "true");
  try {
    const answer = await window.brushwork.fetch(form.action, { method: "POST", body: new FormData(form, button) });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const part = page.getElementById("blind");
    if (!answer.ok || !part) return location.assign(answer.ok ? answer.url : location.href);
    const next = document.adoptNode(part);
    for (const image of current().querySelectorAll(".blind-references img")) {
      next.querySelector(`.blind-references [src="${image.getAttribute("src")}"]`)?.replaceWith(image.cloneNode());
    }
    await show(next);
    const hadFocus = current().contains(document.activeElement); // a key answers without it, and no answer is marked
    current().replaceWith(next);
    window.htmx.process(next);
    const again = next.querySelector(button?.value ? `[value="${button.value}"]` : "[data-shortcut=u]:enabled");
    if (hadFocus) (again || next.querySelector("[data-shortcut='0']"))?.focus({ preventScroll: true });
    told.textContent = next.dataset.number ? `Pair ${next.dataset.number}` : "";
  } catch {
    window.brushwork.toast?.("The answer was not sent. Try again.");
  } finally {
    isSending = false;
    button?.removeAttribute("aria-busy");
  }
}

function look(at) {
  place = at.map((share) => Math.min(100, Math.max(0, share)));
  document.body.style.setProperty("--x", `${place[0]}%`);
  document.body.style.setProperty("--y", `${place[1]}%`);
}

function toggleCloser() {
  const isOn = current().querySelector("[data-blind-pair]").toggleAttribute("data-closer");
  current().querySelector("[data-blind-closer]").setAttribute("aria-pressed", String(isOn));
}

on("submit", "[data-blind-form]", (form, event) => {
  event.preventDefault();
  send(form, event.submitter);
});
on("click", "[data-blind-closer]", toggleCloser);
on("pointermove", ".blind-image", (image, event) => {
  if (!closer()) return;
  const box = image.getBoundingClientRect();
  look([(100 * (event.clientX - box.left)) / box.width, (100 * (event.clientY - box.top)) / box.height]);
});
document.addEventListener("keydown", (event) => {
  if (!closer()) return;
  if (event.key === "Escape") toggleCloser();
  if (!ARROWS[event.key]) return;
  event.preventDefault();
  look(place.map((share, axis) => share + ARROWS[event.key][axis]));
});

// after it waited for images
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.target.id === "blind") show(current());
});
show(current());
