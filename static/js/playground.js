// Playground: inserts trigger words, picks random seeds, recalls the prompt or the seed of a result, and brings what is
// wrong or has the focus into view.
const { on } = window.brushwork;
const MAX_SEED = 2 ** 32;
const LAST = "brushwork.play"; // the settings of this tab's playground, as the query of its address

function insert(word) {
  const prompt = document.getElementById("prompt");
  const text = prompt.value.trim();
  if (text.toLowerCase().includes(word.toLowerCase())) return prompt.focus();
  prompt.value = text ? `${text}, ${word}` : word;
  prompt.focus();
  prompt.dispatchEvent(new Event("input", { bubbles: true }));
}

on("click", "[data-insert]", (chip) => insert(chip.dataset.insert));
on("click", "[data-dice]", () => {
  document.querySelector("[data-seed]").value = crypto.getRandomValues(new Uint32Array(1))[0] % MAX_SEED;
  document.getElementById("keep-seed").checked = true;
});
// a typed seed is kept for the next image
on("input", "[data-seed]", (field) => {
  if (field.value.trim()) document.getElementById("keep-seed").checked = true;
});

// a word that the prompt has is not offered
function offer() {
  const text = document.getElementById("prompt")?.value.toLowerCase() ?? "";
  for (const chip of document.querySelectorAll("#trigger-chips [data-insert]")) chip.hidden = text.includes(chip.dataset.insert.toLowerCase());
}
for (const event of ["input", "htmx:afterSettle", "pageshow"]) addEventListener(event, offer);

// a form that was refused: to what is wrong first
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.detail.target?.id !== "play-form" || event.detail.xhr?.status !== 422) return;
  const form = document.getElementById("play-form");
  (form.querySelector("[aria-invalid=true]") ?? form.querySelector("[role=alert]"))?.focus();
});

// on a phone the result stands above the form and what is made from it below, also for Tab
const phone = matchMedia("(width < 768px)");
function arrange() {
  const page = document.querySelector(".play");
  if (!page) return;
  const side = page.querySelector(".play-side");
  const result = document.getElementById("result");
  if (phone.matches === (result.parentElement === page)) return;
  const focused = document.activeElement;
  if (phone.matches) document.getElementById("play-form").after(side);
  else page.append(side);
  (phone.matches ? page : side).prepend(result);
  focused.focus({ preventScroll: true });
}

// there the image stays above the controls; what gets the focus is scrolled to below it. Elsewhere the columns are scrolled to their ends
const heights = new ResizeObserver(() => {
  const height = document.querySelector(".play .result-images")?.offsetHeight ?? 0;
  document.documentElement.style.setProperty("--stuck", `${height}px`);
  for (const column of document.querySelectorAll(".play > .stack")) column.style.setProperty("--height", `${column.offsetHeight}px`);
});
function start() {
  arrange();
  for (const part of document.querySelectorAll(".play, .play > .stack")) heights.observe(part);
}
start();
phone.addEventListener("change", arrange);
document.addEventListener("htmx:historyRestore", start);

// the actions are one line there, whose end is reached by Tab; a browser leaves what it sees a part of where it is
on("focusin", "#result > .row *", (control) => control.scrollIntoView({ block: "nearest", inline: "nearest" }));

// the way back to Try leads to the settings that it had
const back = document.querySelector(".tabs a[href='/play']:not([aria-current])");
if (back) back.search = sessionStorage.getItem(LAST) ?? "";

addEventListener("pagehide", () => {
  if (document.getElementById("play-form")) sessionStorage.setItem(LAST, location.search);
});

// the rest stays as it was in the playground of this tab
on("click", "a[data-recall]", (link) => {
  const query = new URLSearchParams(sessionStorage.getItem(LAST) ?? "");
  const name = link.dataset.recall;
  query.set(name, new URL(link.href).searchParams.get(name));
  link.href = `/play?${query}`;
});

// Enter in a search does not submit the form; for adapters it searches at once
on("keydown", "[data-find]", (search, event) => {
  if (event.key !== "Enter" || event.defaultPrevented) return;
  event.preventDefault();
  htmx.trigger(search, "find");
});

