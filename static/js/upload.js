// Uploads: one request per image with its caption, three at a time, each with its progress; an
// archive tells in its answer how many of its images are checked. Rejected files stay in the panel
// with their reason. drop.js collects the files, upload_names.js groups them,
// upload_answer.js shows what was added, upload_words.js has the words of the panel.
const root = document.querySelector("[data-upload]");
const AT_ONCE = 3;
const RETRY_MS = [1000, 3000, 9000];
const LINES = "application/x-ndjson";
const { batches, isKnown, isText, nameFor } = window.brushwork.uploadNames;
const { makeRow, summaryOf, sayAt } = window.brushwork.uploadWords;
const find = (name) => root.querySelector(`[data-${name}]`);
const panel = find("upload-panel");
const list = find("upload-list");
const say = sayAt(find("upload-said"));
const counts = { new: 0, again: 0, caption: 0, refused: 0, failed: 0 };
const waiting = [];
const parts = [];
let active = 0; // requests in flight
let resting = 0; // failed requests waiting for a retry
let hasMore = false; // images were added that this page does not show
const stopped = []; // what was canceled, as sentences
const isNew = root.dataset.uploadNew !== undefined; // the files begin a dataset
let address = root.dataset.uploadUrl;

async function add(files) {
  if (!files.length) return;
  if (!address && !(await begin(files))) return;
  panel.hidden = false;
  find("upload-close").hidden = true;
  find("upload-cancel").hidden = false;
  for (const batch of batches(files)) {
    const part = { files: batch, name: batch[0].name, size: Math.max(1, ...batch.map((f) => f.size)), to: address, sent: 0, tries: 0 };
    parts.push(part);
    waiting.push(part);
  }
  if (isNew) showPanel();
  next();
}

// the form that began it has done its part
function showPanel() {
  find("upload-form")?.closest("details").removeAttribute("open");
  panel.focus({ preventScroll: true });
  panel.scrollIntoView({ block: "nearest" });
}

// On pages without a dataset, the files create a new one.
async function begin(files) {
  if (!files.some((file) => isKnown(file))) {
    window.brushwork.toast(`“${files[0].name}” is not an image. Add PNG, JPEG or WebP files.`);
    return false;
  }
  const form = find("upload-form");
  const body = { name: form?.elements.name?.value.trim() || nameFor(files) };
  const word = form?.elements.trigger_word?.value.trim();
  if (word) body.trigger_word = word;
  const answer = await window.brushwork.fetch("/api/v1/datasets", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify(body),
  }).catch(() => null);
  const made = await answer?.json().catch(() => null);
  if (!answer?.ok) {
    window.brushwork.toast(made?.detail ?? "Brushwork cannot be reached. Nothing was added.");
    return false;
  }
  close(); // what became of another one
  find("upload-open").href = `/datasets/${made.slug}`;
  address = `/datasets/${made.slug}/images`;
  return true;
}

const left = () => active + resting + waiting.length;

function next() {
  while (active < AT_ONCE && waiting.length) {
    const isLoneText = isText(waiting[0]);
    if (isLoneText && (active || resting)) break; // its image may still be uploading
    send(waiting.shift());
  }
  summarize();
  if (!left()) finished();
}

function send(part) {
  active += 1;
  part.row ??= addRow(part.name);
  tell(part, "Uploading");
  const form = new FormData();
  for (const file of part.files) form.append("files", file, file.path ?? file.name);
  const request = new XMLHttpRequest();
  part.request = request;
  part.done = part.total = 0;
  part.isArchive = /\.zip$/i.test(part.name);
  request.open("POST", part.to);
  request.setRequestHeader("HX-Request", "true");
  if (part.isArchive) {
    request.setRequestHeader("Accept", LINES);
    request.addEventListener("progress", () => tellImages(part));
  }
  request.upload.addEventListener("progress", (event) => {
    part.sent = event.total ? event.loaded / event.total : 0;
    part.row.querySelector("progress").value = part.sent;
    if (part.sent === 1) tell(part, "Checking");
    summarize();
  });
  request.addEventListener("loadend", () => {
    window.brushwork.checkBuild(request);
    settle(part, request);
  });
  request.send(form);
}

// the last complete line of the answer so far
const lastLine = (request) => {
  const text = request.responseText;
  const end = text.lastIndexOf("\n");
  return end > 0 ? JSON.parse(text.slice(text.lastIndexOf("\n", end - 1) + 1, end)) : {};
};

function tellImages(part) {
  const { done, total, name } = lastLine(part.request);
  if (!total) return;
  part.done = done;
  part.total = total;
  part.row.querySelector("progress").value = shareOf(part);
  tell(part, `Image ${done} of ${total}: ${name}`);
  summarize();
}

function settle(part, request) {
  active -= 1;
  if (part.isCanceled) {
    stop(part);
    return next();
  }
  const canRetry = [0, 502, 503, 504].includes(request.status); // 0: it was not answered
  if (canRetry && part.tries < RETRY_MS.length) {
    tell(part, "No connection, trying again");
    resting += 1;
    setTimeout(() => {
      resting -= 1;
      if (part.isCanceled) stop(part);
      else waiting.unshift(part);
      next();
    }, RETRY_MS[part.tries++]);
    next();
    return;
  }
  part.isSettled = true;
  if (canRetry) fail(part);
  else if (request.status >= 400) refuse(part, part.name, reasonOf(request));
  else if (part.isArchive) acceptLines(part);
  else accept(part, request.responseText);
  next();
}

function acceptLines(part) {
  const { html, detail } = lastLine(part.request);
  if (html) accept(part, html);
  else refuse(part, part.name, detail ?? "The connection ended early. Upload it again: what was added is recognized.");
}

// Requests on their way end, waiting ones are not sent; added images stay.
function cancel() {
  for (const part of waiting.splice(0)) stop(part);
  for (const part of parts.filter((one) => !one.isSettled)) {
    part.isCanceled = true;
    part.request.abort(); // does nothing while it waits for another try
  }
  next();
}

function stop(part) {
  part.isSettled = true;
  const done = part.done ? `${part.done} of ${part.total} images were checked, and stay` : "not added";
  stopped.push(`${part.name}: ${done}`);
  if (part.done) hasMore = true;
  part.row?.remove();
}

function reasonOf(request) {
  const type = request.getResponseHeader("Content-Type") ?? "";
  try {
    if (type.includes("json")) return JSON.parse(request.responseText).detail;
  } catch {
    return "The server rejected it.";
  }
  const page = new DOMParser().parseFromString(request.responseText, "text/html");
  return page.querySelector(".notice p")?.textContent.trim() || "The server rejected it.";
}

function accept(part, html) {
  const { taken, refused, isPartial } = window.brushwork.showUploaded(html);
  for (const kind of taken) counts[kind] += 1;
  hasMore ||= isPartial;
  for (const { name, reason } of refused) refuse(part, name, reason);
  if (!refused.length) part.row.remove();
}

function addRow(name) {
  const row = makeRow(name);
  list.append(row);
  return row;
}

function tell(part, words) {
  part.row.querySelector(".hint").textContent = words;
}

function refuse(part, name, reason) {
  counts.refused += 1;
  const row = part.row.isConnected && !part.row.dataset.refused ? part.row : addRow(name);
  row.dataset.refused = "true";
  row.querySelector(".upload-name").textContent = name;
  row.querySelector(".hint").textContent = reason;
  row.querySelector("progress").remove();
}

function fail(part) {
  counts.failed += 1;
  tell(part, "Not sent: Brushwork cannot be reached. ");
  const retry = () => {
    counts.failed -= 1;
    part.tries = 0;
    part.sent = 0;
    part.isSettled = false;
    waiting.push(part);
    next();
  };
  part.row.querySelector(".hint").append(window.brushwork.makeButton("Retry", retry, "link-button"));
}

// the share of an archive is that of its images; while it is sent, only its own bar moves
const shareOf = (part) => (part.isSettled ? 1 : part.isArchive ? part.done / (part.total || 1) : part.sent);

function summarize() {
  const size = parts.reduce((sum, part) => sum + part.size, 0);
  find("upload-total").value = parts.reduce((sum, part) => sum + shareOf(part) * part.size, 0) / (size || 1);
  const words = summaryOf(parts, counts, stopped, left() > 0);
  find("upload-summary").textContent = words.join(" · ");
  say(words.join(", "), find("upload-total").value, left() > 0);
}

function finished() {
  const hadFocus = document.activeElement === find("upload-cancel");
  find("upload-total").hidden = true;
  find("upload-cancel").hidden = true;
  const isClean = !counts.refused && !counts.failed && !stopped.length;
  if (hasMore && !isNew) {
    find("upload-open").href = location.pathname;
    find("upload-open").textContent = "Show all images";
    find("upload-open").hidden = false;
  }
  if (isNew) address = ""; // the next files begin another one
  if (!isNew) find("upload-close").hidden = false;
  else if (isClean) location.assign(find("upload-open").href);
  else find("upload-open").hidden = false;
  if (isClean && !hasMore && !list.childElementCount && !isNew) {
    window.brushwork.toast(find("upload-summary").textContent);
    close();
  }
  if (hadFocus) (panel.hidden ? find("upload-input") : panel.querySelector("a:not([hidden]), button:not([hidden])")).focus();
}

function close() {
  if (panel.contains(document.activeElement)) find("upload-input")?.focus();
  panel.hidden = true;
  list.replaceChildren();
  parts.length = 0;
  stopped.length = 0;
  hasMore = false;
  if (!isNew) find("upload-open").hidden = true;
  for (const name of Object.keys(counts)) counts[name] = 0;
  find("upload-total").hidden = false;
}

find("upload-close").addEventListener("click", close);
find("upload-cancel").addEventListener("click", cancel);
window.addEventListener("beforeunload", (event) => {
  if (left()) event.preventDefault();
});
window.brushwork.addFiles = add;
