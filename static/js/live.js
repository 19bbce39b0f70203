// Live redraws: moving a weight generates the image again, with the seed as it is. The newest value counts: requests
// wait until the slider rests for a moment, and the server cancels what this tab asked for before. Whatever else is
// changed marks the image as out of date. Where an image takes long, it is redrawn once the weight is let go.
const REST_MS = 150; // a slider that rests for so long has a new value
const SLOW_REST_MS = 500; // where an image takes seconds, several keys ask for one
const slot = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const OLD = "Out of date. Press Generate.";
let timer = 0;
let isHeld = false; // a pointer is down
let note = "";
let asked = ""; // what the last redraw starts from

const play = () => document.getElementById("play-form");
const isLive = () => Boolean(play().querySelector("[data-live]:checked") && document.getElementById("prompt").value.trim());

const isSlow = () => Boolean(document.querySelector("#live-note:not(:empty)"));

// the adapters and the image to start from: an image of others would be one of settings that are gone
const subjects = () => [...play().querySelectorAll("[name^=adapter-], [name=source]")].map((field) => field.value).join();

function mark(text) {
  note = text;
  const shown = document.querySelector("[data-old-note]");
  if (!shown) return;
  shown.hidden = !note;
  shown.textContent = note;
  shown.parentElement.classList.toggle("out-of-date", Boolean(note));
}

function redraw() {
  timer = 0;
  if (isHeld && isSlow()) return rest();
  if (play().classList.contains("htmx-request")) return rest(); // Generate comes first
  document.getElementById("live-told").textContent = "";
  htmx.trigger("#live-redraw", "redraw");
}

function rest() {
  clearTimeout(timer);
  timer = setTimeout(redraw, isSlow() ? SLOW_REST_MS : REST_MS);
}

document.addEventListener("pointerdown", () => { isHeld = true; }, true);
for (const ended of ["pointerup", "pointercancel"]) document.addEventListener(ended, () => { isHeld = false; }, true);

document.addEventListener("input", (event) => {
  if (!event.target.closest?.("#play-form") || event.target.matches("[type=search], [data-live], [data-mix]")) return;
  if (event.target.closest("[data-picker]")) return; // nothing of it is in the image yet
  const isWeight = Boolean(event.target.closest("[data-weight-row]"));
  const shown = window.brushwork.showWeight(event.target); // an image of the strip
  if (shown === "exact") {
    clearTimeout(timer);
    timer = 0;
    return mark("");
  }
  if (!isWeight || !isLive()) return mark(shown ? "" : OLD);
  const when = isHeld && isSlow() ? "drawn when you let go" : "redrawing…";
  mark(`${shown ? "Nearest weight" : "Out of date"}, ${when}`);
  rest();
});

document.addEventListener("htmx:configRequest", (event) => {
  if (event.detail.parameters.slot !== undefined) event.detail.parameters.slot = slot;
  if (event.target.id === "live-redraw") asked = subjects();
});
document.addEventListener("htmx:beforeOnLoad", (event) => {
  // nothing of a late answer is used, or its address would bring them back
  if (event.target.id === "live-redraw" && asked !== subjects()) event.preventDefault();
});

// refused, lost, or no longer wanted: nothing else redraws it
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.target.id === "live-redraw" && !timer && note.includes("redrawing")) mark(OLD);
});

document.addEventListener("submit", (event) => {
  if (event.target !== play()) return;
  clearTimeout(timer);
  timer = 0;
}, true);

// an answer to what was asked before is out of date too
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.target.id === "live-told") mark("Out of date.");
  if (event.target.id === "stack" && !event.detail.requestConfig.parameters.put) mark(OLD); // of a strip, its image is shown
  if (event.target.id === "result") mark(timer || event.detail.requestConfig?.triggeringEvent?.type === "poll" ? note : "");
});
