// Polling: an element with `hx-trigger="poll"` and `data-poll="2 10"` is requested after 2 seconds,
// then after twice the time whenever nothing changed, up to 10 seconds. A change makes it quick
// again. A tab in the background polls every 30 seconds. It needs an id; it stops by coming back
// without `data-poll`. After two requests without an answer, or ten seconds, it is marked `data-stale`, and the page says so once.
const HIDDEN_MS = 30_000;
const QUIET_MS = 3_000; // between two requests of a page on which nothing changes
const FEW = 3;
const MISSES = 2;
const SILENT_MS = 10_000; // a server that takes requests and answers none
const LOST = "Not connected to Brushwork. What is gray may be out of date; trying again.";
const polls = new Map(); // id of the element → its state
let lost = null; // the message, until the server answers again

const firstWait = (poll) => 1000 * poll.element.dataset.poll.split(" ")[0];
const longestWait = (poll) =>
  Math.max(1000 * poll.element.dataset.poll.split(" ")[1], QUIET_MS * polls.size);

function schedule(poll) {
  clearTimeout(poll.timer);
  poll.timer = setTimeout(ask, document.hidden ? Math.max(poll.wait, HIDDEN_MS) : poll.wait, poll);
}

function ask(poll) {
  if (document.getElementById(poll.id) !== poll.element) return polls.delete(poll.id);
  schedule(poll); // a request can be dropped, so the next one does not depend on its answer
  if (!poll.isAsking) poll.element.dispatchEvent(new Event("poll"));
  else if (Date.now() - poll.askedAt > SILENT_MS) miss(poll, MISSES);
  return true;
}

function watch(element) {
  element.addEventListener("htmx:beforeSwap", dropLateAnswer);
  const known = polls.get(element.id);
  clearTimeout(known?.timer);
  const poll = known?.isAnswered ? known : { id: element.id };
  polls.set(element.id, poll);
  Object.assign(poll, { element, isAnswered: false, isAsking: false });
  // many at once, such as the files of an import, begin one after the other
  poll.wait ??= firstWait(poll) * Math.max(1, polls.size - FEW);
  schedule(poll);
}

// An answer for an element that was replaced meanwhile: the parts in it would find no place. One that the server
// sends elsewhere (HX-Retarget) does.
function dropLateAnswer(event) {
  if (!event.detail.target.isConnected) event.detail.shouldSwap = false;
}

function slowDown(poll) {
  poll.wait = Math.min(2 * poll.wait, longestWait(poll));
}

// A changed part is asked again soon; of many, so is the one after it: files are imported in order.
function speedUp(changed) {
  changed.wait = firstWait(changed);
  if (polls.size <= FEW) return;
  const all = [...polls.values()];
  const next = all[(all.indexOf(changed) + 1) % all.length];
  if (next.wait === firstWait(next)) return;
  next.wait = firstWait(next);
  schedule(next);
}

function miss(poll, weight = 1) {
  slowDown(poll);
  poll.misses = (poll.misses ?? 0) + weight;
  if (poll.misses < MISSES) return;
  poll.element.dataset.stale = "";
  lost ??= window.brushwork.toast(LOST);
}

function connect(poll) {
  poll.misses = 0;
  delete poll.element.dataset.stale;
  lost?.remove();
  lost = null;
}

// what happens to the request of a poll
function onPoll(type, act) {
  document.addEventListener(type, (event) => {
    const request = event.detail.requestConfig;
    const poll = request?.triggeringEvent?.type === "poll" && polls.get(request.elt.id);
    if (poll && poll.element === request.elt) act(poll, event.detail, event);
  });
}

// A session that has ended must not lead away from a page on which somebody types.
onPoll("htmx:beforeOnLoad", (poll, { xhr }, event) => {
  if (xhr.status !== 401) return;
  event.preventDefault();
  slowDown(poll);
});

document.addEventListener("htmx:afterProcessNode", (event) => {
  if (event.detail.elt.dataset.poll) watch(event.detail.elt);
});
onPoll("htmx:beforeSend", (poll) => Object.assign(poll, { isAsking: true, askedAt: Date.now() }));
onPoll("htmx:beforeSwap", (poll, detail) => {
  if (detail.xhr.status >= 500) {
    detail.shouldSwap = false;
    miss(poll);
    return;
  }
  connect(poll);
  const answer = detail.serverResponse;
  if (detail.isError || answer === poll.answer) {
    detail.shouldSwap = false;
    slowDown(poll);
    return;
  }
  poll.answer = answer;
  poll.isAnswered = true; // the element that comes now goes on with this state
  speedUp(poll);
});
onPoll("htmx:sendError", (poll) => miss(poll));
onPoll("htmx:afterRequest", (poll) => {
  poll.isAsking = false;
  schedule(poll);
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  for (const poll of [...polls.values()]) {
    poll.wait = firstWait(poll);
    ask(poll);
  }
});
