// Imports .safetensors files that are chosen or dropped anywhere on the page. Files with the same
// name next to one (.json, .civitai.info, an image) are sent with it. The cards below are reloaded
// after an import.
(() => {
  const form = document.querySelector("[data-import]");
  const list = document.getElementById("imports");
  if (!form || !list) return;
  const input = form.querySelector("input[type=file]");
  form.querySelector("[data-import-submit]").hidden = true;
  const besides = /(\.preview)?\.(png|jpe?g|webp)$|\.civitai\.info$|\.json$/i;
  let depth = 0;

  async function send(files) {
    const name = files[0].name;
    const line = document.createElement("div");
    line.className = "notice";
    line.textContent = `${name} is being uploaded…`;
    list.append(line);
    const body = new FormData();
    for (const file of files) body.append("file", file);
    try {
      const headers = { "HX-Request": "true", Accept: "text/html" };
      const response = await fetch(form.action, { method: "POST", body, headers });
      const answer = document.createElement("template");
      answer.innerHTML = await response.text();
      const notices = [...answer.content.children];
      line.replaceWith(...notices);
      notices.forEach((notice) => htmx.process(notice));
    } catch {
      line.classList.add("bad");
      line.textContent = `${name} was not uploaded: Brushwork cannot be reached. Drop it again.`;
    }
  }

  function sendAll(chosen) {
    const files = [...chosen];
    const stem = (file) => file.name.replace(besides, "").replace(/\.safetensors$/i, "");
    const groups = files.filter((file) => !besides.test(file.name)).map((file) => [file]);
    for (const file of files.filter((file) => besides.test(file.name))) {
      const own = groups.filter((group) => stem(group[0]) === stem(file));
      own.forEach((group) => group.push(file));
      if (own.length === 0) groups.push([file]);
    }
    groups.forEach(send);
  }

  list.addEventListener("htmx:afterSettle", () => {
    const done = list.querySelectorAll(".notice.good").length;
    const more = done > Number(list.dataset.done || 0);
    list.dataset.done = done;
    if (!more || !document.getElementById("results")) return;
    const parts = { select: "#results", selectOOB: "#adapter-count,#adapter-chips" };
    htmx.ajax("GET", location.href, { target: "#results", swap: "outerHTML", ...parts });
  });

  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = (on) => document.body.classList.toggle("dropping", on);

  input.addEventListener("change", () => {
    sendAll(input.files);
    form.reset();
  });
  addEventListener("dragenter", (event) => carriesFiles(event) && show(++depth > 0));
  addEventListener("dragleave", (event) => carriesFiles(event) && show(--depth > 0));
  addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    show(false);
    sendAll(event.dataTransfer.files);
  });
})();
