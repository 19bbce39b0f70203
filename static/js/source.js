// The image to start from: a file that is dropped on its panel, or pasted while the focus is in it, is used at once.
// Elsewhere on the page, recall.js reads the settings inside it.
(() => {
  const panel = () => document.getElementById("source");
  const isOver = (event) => Boolean(event.target.closest?.("#source")) && event.dataTransfer?.types.includes("Files");

  function use(file) {
    const input = document.getElementById("source-file");
    const transfer = new DataTransfer();
    transfer.items.add(file);
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }

  document.addEventListener("dragover", (event) => {
    panel()?.classList.toggle("dropping", isOver(event));
    if (isOver(event)) event.preventDefault();
  }, true);
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget?.closest?.("#source")) panel()?.classList.remove("dropping");
  });
  document.addEventListener("drop", (event) => {
    if (!isOver(event)) return;
    event.preventDefault();
    event.stopPropagation(); // no settings are read from it
    panel().classList.remove("dropping");
    if (event.dataTransfer.files.length) use(event.dataTransfer.files[0]);
  }, true);
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (!file || !document.activeElement?.closest("#source")) return;
    event.preventDefault();
    event.stopPropagation();
    use(file);
  }, true);

  // the panel was replaced: the focus stays in it, and the image of before is out of date
  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.target.id !== "source") return;
    if (document.activeElement === document.body) panel().querySelector("[data-weight-slider], summary").focus();
    panel().dispatchEvent(new Event("input", { bubbles: true }));
  });
})();
