// Imports .safetensors files that drop.js collects on the page. Files with the same name next to one
// (.json, .civitai.info, an image) are sent with it, PEFT's adapter_config.json with its
// adapter_model.safetensors or the only file. One panel shows them with a total: each file is a row
// with its `data-import-state`. The cards below are reloaded as adapters come in.
const form = document.querySelector("[data-import]");
const panel = document.getElementById("import-panel");
const AT_ONCE = 3;
const CANCEL_AT_ONCE = 100; // of one request
const MANY = 6; // more rows than this: only those that need a look are shown
const RELOAD_MS = 4000;
const list = document.getElementById("imports");
const input = form.querySelector("input[type=file]");
const find = (name) => panel.querySelector(`[data-import-${name}]`);
const besides = /(\.preview)?\.(png|jpe?g|webp)$|\.civitai\.info$|\.json$/i;
const waiting = []; // groups of files that are not sent yet, each with its row
let sending = 0;
let shown = 0; // imported adapters that the cards below show
let reload = null;
let wasActive = false;
const unwanted = new Set(); // rows of files on their way, which are canceled when they have arrived
form.querySelector("[data-import-submit]").hidden = true;

function addRow(name) {
  const row = window.brushwork.make("div", { className: "notice" });
  list.append(row);
  say(row, "upload", `${name} is waiting to be uploaded…`);
  return row;
}

function say(row, state, words) {
  row.dataset.importState = state;
  row.classList.toggle("bad", state === "bad");
  row.textContent = words;
}

// the rows of imports that are answered
async function post(address, body) {
  const headers = { "HX-Request": "true", Accept: "text/html" };
  const response = await window.brushwork.fetch(address, { method: "POST", body, headers });
  const answer = document.createElement("template");
  answer.innerHTML = await response.text();
  return { response, rows: [...answer.content.children] };
}

function next() {
  while (sending < AT_ONCE && waiting.length) send(waiting.shift());
  summarize();
}

async function send({ files, row }) {
  const { name } = files[0];
  sending += 1;
  say(row, "upload", `${name} is being uploaded…`);
  const body = new FormData();
  for (const file of files) body.append("file", file);
  try {
    const { rows } = await post(form.action, body);
    if (!rows.length) throw new Error("no answer");
    for (const one of rows) one.dataset.importState ??= "bad"; // the notice of an error
    row.replaceWith(...rows);
    rows.forEach((one) => htmx.process(one));
    if (unwanted.delete(row)) await cancel(keysOf(rows));
  } catch {
    say(row, "bad", `${name} was not uploaded: Brushwork cannot be reached. `);
    const sendAgain = () => {
      waiting.push({ files, row });
      next();
    };
    row.append(window.brushwork.makeButton("Try again", sendAgain, "link-button"));
  }
  sending -= 1;
  next();
}

const keysOf = (rows) =>
  rows.filter((row) => ["waiting", "running"].includes(row.dataset.importState)).map((row) => row.id.slice("import-".length));

async function cancel(keys) {
  for (let at = 0; at < keys.length; at += CANCEL_AT_ONCE) {
    const body = new URLSearchParams();
    for (const key of keys.slice(at, at + CANCEL_AT_ONCE)) body.append("import", key);
    const { response, rows } = await post(find("cancel").action, body);
    if (!response.ok) return;
    for (const key of body.getAll("import")) {
      const row = rows.shift();
      const old = document.getElementById(`import-${key}`); // none if it ended meanwhile
      old?.replaceWith(row);
      if (old) htmx.process(row);
    }
  }
}

// files that wait here are not sent; those on their way are canceled when they have arrived
async function cancelAll() {
  for (const { files, row } of waiting.splice(0)) say(row, "canceled", `Canceled. ${files[0].name} was not imported.`);
  for (const row of rowsIn("upload")) {
    if (!unwanted.has(row)) row.textContent = row.textContent.replace(/…$/, " and is then canceled…");
    unwanted.add(row);
  }
  summarize();
  try {
    await cancel(keysOf([...list.children]));
  } catch {
    // Brushwork cannot be reached: the rows stay, with their own buttons
  }
  summarize();
}

function sendAll(files) {
  const stem = (file) => file.name.replace(besides, "").replace(/\.safetensors$/i, "");
  const groups = files.filter((file) => !besides.test(file.name)).map((file) => [file]);
  const owner = (file) => {
    if (file.name !== "adapter_config.json") return (group) => stem(group[0]) === stem(file);
    return (group) => group[0].name === "adapter_model.safetensors" || groups.length === 1;
  };
  for (const file of files.filter((file) => besides.test(file.name))) {
    const own = groups.filter(owner(file));
    own.forEach((group) => group.push(file));
    if (own.length === 0) groups.push([file]);
  }
  for (const group of groups) waiting.push({ files: group, row: addRow(group[0].name) });
  next();
}

const isAllShown = () => find("all").getAttribute("aria-pressed") === "true";

const rowsIn = (...states) => [...list.children].filter((row) => states.includes(row.dataset.importState));

function summarize() {
  const total = list.childElementCount;
  const good = rowsIn("good").length;
  const bad = rowsIn("bad");
  const known = rowsIn("known").length;
  const canceled = rowsIn("canceled").length;
  const left = total - good - known - bad.length - canceled;
  const here = known === 1 ? "was here already" : "were here already";
  const counts = [[good, "imported"], [known, here], [bad.length, "not imported"], [canceled, "canceled"], [left, "to go"]];
  const parts = counts.filter(([number]) => number).map(([number, word]) => `${number} ${word}`);
  const words = `${total} file${total === 1 ? "" : "s"}: ${parts.join(", ")}`;
  panel.hidden = !total;
  find("summary").textContent = words;
  Object.assign(find("total"), { max: total || 1, value: total - left, hidden: !left });
  find("close").hidden = left > 0;
  const hadFocus = find("cancel").contains(document.activeElement);
  find("cancel").hidden = !left || (left < 2 && !hadFocus);
  if (hadFocus && !left) find("close").focus();
  const isMany = total > MANY;
  const toggle = find("all");
  toggle.hidden = !isMany;
  toggle.textContent = isAllShown() ? "Show less" : `Show all ${total} files`;
  list.toggleAttribute("data-short", isMany && !isAllShown());
  if (wasActive && !left) {
    const names = bad.slice(0, 3).map((row) => row.querySelector("strong")?.textContent ?? row.textContent);
    find("said").textContent = words + (names.length ? `. Not imported: ${names.join(", ")}` : "");
  }
  wasActive = left > 0;
  showCards(good, left);
}

// not for each of many files: the first at once, then every few seconds, and at the end
function showCards(good, left) {
  if (good <= shown || !document.getElementById("results")) return;
  if (reload && left) return;
  clearTimeout(reload);
  shown = good;
  reload = setTimeout(() => {
    reload = null;
    summarize();
  }, RELOAD_MS);
  const parts = { select: "#results", selectOOB: "#adapter-count,#adapter-chips" };
  htmx.ajax("GET", location.href, { target: "#results", swap: "outerHTML", ...parts });
}

find("all").addEventListener("click", (event) => {
  event.target.setAttribute("aria-pressed", String(!isAllShown()));
  summarize();
});
find("cancel").addEventListener("submit", (event) => {
  event.preventDefault();
  cancelAll();
});
find("close").addEventListener("click", () => {
  list.replaceChildren();
  shown = 0;
  summarize();
  input.focus();
});
list.addEventListener("htmx:afterSettle", summarize);

addEventListener("beforeunload", (event) => {
  if (sending || waiting.length) event.preventDefault();
});
// one image alone belongs to no adapter: styles like it are searched
window.brushwork.addFiles = (files) => {
  if (files.length === 1 && /\.(png|jpe?g|webp)$/i.test(files[0].name)) window.brushwork.searchByImage(files[0]);
  else sendAll(files);
};
shown = rowsIn("good").length;
summarize();
