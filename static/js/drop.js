// Collects files that are dropped, pasted or chosen on the page; upload.js or import.js sends them.
const veil = document.querySelector("[data-drop-veil]");
const addFiles = (files) => window.brushwork.addFiles(files);
const form = document.querySelector("[data-upload-form]");
const input = document.querySelector("[data-upload-input]");

// Folders are walked; browsers return their entries a hundred at a time.
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  const found = [];
  const walk = async (entry) => {
    if (entry.isFile) {
      const file = await new Promise((done, failed) => entry.file(done, failed));
      file.path = entry.fullPath.replace(/^\//, "");
      if (!file.name.startsWith(".")) found.push(file);
      return;
    }
    const reader = entry.createReader();
    for (;;) {
      const some = await new Promise((done, failed) => reader.readEntries(done, failed));
      if (!some.length) return;
      for (const inner of some) await walk(inner);
    }
  };
  for (const entry of entries) await walk(entry);
  return found;
}

const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
let depth = 0;
const showVeil = (by) => {
  depth = Math.max(0, depth + by);
  veil.hidden = !depth;
};
document.addEventListener("dragenter", (event) => hasFiles(event) && showVeil(1));
document.addEventListener("dragleave", (event) => hasFiles(event) && showVeil(-1));
document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
document.addEventListener("drop", async (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  showVeil(-Infinity);
  addFiles(await filesOf(event.dataTransfer));
});
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (!files.length) return;
  event.preventDefault();
  addFiles(files);
});
input?.addEventListener("change", () => {
  if (form.elements.name) return; // the form has more fields: Create submits it
  addFiles([...input.files]);
  input.value = "";
});
form?.addEventListener("submit", (event) => {
  if (!input?.files.length) return; // a new, empty dataset: a normal form submit
  event.preventDefault();
  addFiles([...input.files]);
});
for (const link of document.querySelectorAll("[data-open]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    const details = document.querySelector(link.dataset.open);
    details.open = true;
    details.querySelector("input").focus();
  });
}
