// Adapters are imported by choosing or dropping .safetensors files anywhere on the page.
(() => {
  const form = document.querySelector("[data-import]");
  const list = document.getElementById("imports");
  if (!form || !list) return;
  const input = form.querySelector("input[type=file]");
  form.querySelector("[data-import-submit]").hidden = true;
  let depth = 0;

  async function send(file) {
    const line = document.createElement("div");
    line.className = "notice";
    line.textContent = `${file.name} is being sent…`;
    list.append(line);
    const body = new FormData();
    body.append("file", file);
    try {
      const headers = { "HX-Request": "true", Accept: "text/html" };
      const response = await fetch(form.action, { method: "POST", body, headers });
      const answer = document.createElement("template");
      answer.innerHTML = await response.text();
      const notice = answer.content.firstElementChild;
      line.replaceWith(notice);
      htmx.process(notice);
    } catch {
      line.classList.add("bad");
      line.textContent = `${file.name} was not sent: Brushwork cannot be reached. Drop it again.`;
    }
  }

  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  const show = (on) => document.body.classList.toggle("dropping", on);

  input.addEventListener("change", () => {
    for (const file of input.files) send(file);
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
    for (const file of event.dataTransfer.files) send(file);
  });
})();
