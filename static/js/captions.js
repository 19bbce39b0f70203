// Captions save themselves: a moment after typing stops, on leaving the field, and when the page is
// left. Typed text is never replaced; the text of another browser is offered next to it.
const { make, makeButton, on } = window.brushwork;
const WAIT_MS = 800;
const RETRY_MS = 4000;
const SAVED_MS = 10_000; // for how long it says “Saved”
const fields = new WeakMap(); // textarea -> its state
const live = document.querySelector("[data-caption-live]");

function stateOf(area) {
  if (!fields.has(area)) {
    const saved = area.defaultValue.trim();
    fields.set(area, { saved, timer: 0, saving: false, again: false, stuck: false, isTyping: false });
  }
  return fields.get(area);
}

const isDirty = (area) => fields.has(area) && area.value.trim() !== stateOf(area).saved;
const dirtyAreas = () => [...document.querySelectorAll("[data-caption]")].filter(isDirty);

function show(area, words, kind = "") {
  const place = area.form.querySelector("[data-state]");
  place.textContent = words;
  place.className = kind;
  return place;
}

// said only of the last one, for a while
let justSaved = null;
function showSaved(area) {
  if (justSaved?.textContent === "Saved") justSaved.textContent = "";
  const place = show(area, area.value.trim() ? "Saved" : "No caption");
  justSaved = place;
  setTimeout(() => place.textContent === "Saved" && (place.textContent = ""), SAVED_MS);
}

function announce(area, words) {
  live.textContent = `${area.labels[0].textContent}: ${words}`;
}

function typed(area) {
  const state = stateOf(area);
  clearTimeout(state.timer);
  if (!isDirty(area)) return show(area, state.saved ? "" : "No caption");
  if (state.stuck) return undefined; // theirs or mine: that choice comes first
  show(area, "Saving…");
  state.timer = setTimeout(save, WAIT_MS, area);
  return undefined;
}

async function save(area, { leaving = false } = {}) {
  const state = stateOf(area);
  clearTimeout(state.timer);
  if (state.stuck || !isDirty(area)) return;
  if (state.saving && !leaving) {
    state.again = true;
    return;
  }
  state.saving = true;
  state.again = false;
  show(area, "Saving…");
  const version = area.form.elements.version;
  const sent = area.value.trim();
  let failure = "";
  try {
    const fields = { caption: sent, version: version.value, typing: state.isTyping ? "1" : "" };
    const answer = await window.brushwork.post(area.form.action, fields, { keepalive: leaving });
    const body = await answer.json();
    if (answer.ok) took(area, sent, body);
    else if (answer.status === 409 && body.errors) offerChoice(area, body.errors);
    else if (answer.status < 500) refuse(area, body.detail);
    else failure = "server";
  } catch {
    failure = "network";
  }
  state.saving = false;
  if (failure) retryLater(area);
  else if (state.again) save(area);
}

function took(area, sent, body) {
  const state = stateOf(area);
  state.saved = body.caption.trim();
  state.isTyping = document.activeElement === area; // until it is left, the history has one entry
  area.form.elements.version.value = body.version;
  showTokens(area, body.tokens);
  const count = document.querySelector('[data-count="uncaptioned"]');
  if (count) count.textContent = body.uncaptioned;
  document.body.dispatchEvent(new CustomEvent("captions-changed"));
  if (area.value.trim() === sent) {
    showSaved(area);
    announce(area, "saved");
  } else typed(area);
}

function showTokens(area, tokens) {
  const place = document.querySelector(`[data-tokens-of="${area.id}"]`);
  if (!place) return;
  const most = Number(place.dataset.tokens);
  place.querySelector("[data-tokens-count]").textContent = `${tokens} / ${most}`;
  place.classList.toggle("tokens-long", tokens > most);
  place.hidden = !tokens;
}

function refuse(area, reason) {
  show(area, `Not saved: ${reason}`, "state-bad");
  announce(area, `not saved. ${reason}`);
}

function retryLater(area) {
  const place = show(area, "Not saved ", "state-bad");
  place.append(makeButton("Retry", () => save(area), "link-button"));
  announce(area, "not saved, trying again");
  stateOf(area).timer = setTimeout(save, RETRY_MS, area);
}

function offerChoice(area, errors) {
  const state = stateOf(area);
  const theirs = Object.fromEntries(errors.map((error) => [error.field, error.detail]));
  state.stuck = true;
  show(area, "Changed elsewhere", "state-bad");
  const words = theirs.caption ? `Theirs: “${theirs.caption}”` : "Theirs: no caption";
  const choose = (label, act) => {
    const chosen = () => {
      box.remove();
      state.stuck = false;
      state.saved = theirs.caption;
      area.form.elements.version.value = theirs.caption_version;
      act();
      area.focus();
    };
    return makeButton(label, chosen, "button");
  };
  const buttons = make(
    "div",
    { className: "row" },
    choose("Keep mine", () => (isDirty(area) ? save(area) : typed(area))),
    choose("Take theirs", () => {
      area.value = theirs.caption;
      typed(area);
    }),
  );
  const properties = { className: "contested stack gap-2 small", role: "group", ariaLabel: "This caption was changed elsewhere" };
  const box = make("div", properties, make("p", { textContent: words }), buttons);
  area.after(box);
  announce(area, "changed elsewhere. Choose between theirs and yours.");
}

// `then` is called when the next page of images is here
function loadMore(then) {
  const more = document.querySelector("[data-more]");
  if (!more) return false;
  whenTilesCome(then);
  more.click();
  return true;
}

function whenTilesCome(then) {
  const settled = (event) => {
    if (!event.target.closest?.("[data-tiles]")) return; // another part of the page
    document.removeEventListener("htmx:afterSettle", settled);
    then();
  };
  document.addEventListener("htmx:afterSettle", settled);
}

// the link that loads the next page is replaced by it; the focus goes to its first image
document.addEventListener("htmx:beforeSwap", (event) => {
  const link = event.target.querySelector?.(":scope > [data-more]");
  if (!link || link !== document.activeElement) return;
  const count = document.querySelectorAll("[data-tile]").length;
  const focus = () => document.querySelectorAll("[data-tile]")[count]?.querySelector("[data-select]").focus();
  whenTilesCome(focus);
});

function moveTo(area, by) {
  const all = [...document.querySelectorAll("[data-caption]")];
  const next = all[all.indexOf(area) + by];
  if (!next) return (by > 0 && loadMore(() => moveTo(area, by))) || openImage(area, by);
  next.focus();
  next.setSelectionRange(next.value.length, next.value.length);
  (next.closest("[data-tile]") ?? next).scrollIntoView({ block: "nearest" });
  return true;
}

// on the page of one image: the page of the next or previous one, once the caption is saved
function openImage(area, by) {
  const link = document.querySelector(`[data-go="${by > 0 ? "next" : "previous"}"]`);
  if (!link?.href) return false;
  save(area).then(() => link.click());
  return true;
}

on("focusin", "[data-caption]", stateOf);
on("input", "[data-caption]", typed);
on("focusout", "[data-caption]", (area) => {
  save(area);
  stateOf(area).isTyping = false;
});
// the button that was pressed is gone from what comes back; `{kind}` is the one that its form says
document.addEventListener("htmx:afterSwap", (event) => {
  const pressed = event.detail.requestConfig?.elt;
  const next = pressed?.dataset.focusAfter;
  if (next) document.getElementById(next.replace("{kind}", pressed.elements.kind?.value))?.focus();
});
on("keydown", "[data-caption]", (area, event) => {
  if (!event.ctrlKey || event.altKey) return;
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by && moveTo(area, by)) event.preventDefault();
});
on("submit", "[data-caption-form]", (form, event) => {
  event.preventDefault();
  save(form.querySelector("[data-caption]"));
});
window.addEventListener("online", () => dirtyAreas().forEach((area) => save(area)));
document.addEventListener("visibilitychange", () => {
  if (document.hidden) dirtyAreas().forEach((area) => save(area, { leaving: true }));
});
window.addEventListener("beforeunload", (event) => {
  const areas = dirtyAreas();
  if (!areas.length) return;
  areas.forEach((area) => save(area, { leaving: true }));
  event.preventDefault();
});
// a caption that the server could not save is rendered with its text and counts as unsaved
for (const area of document.querySelectorAll("[data-caption][data-unsaved]")) {
  stateOf(area).saved = area.dataset.unsaved;
}
Object.assign(window.brushwork, { isCaptionDirty: isDirty, loadMoreImages: loadMore });
