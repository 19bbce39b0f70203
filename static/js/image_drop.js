// An image that is dropped or pasted on the playground. On the panel of the image to start from, or pasted while the focus
// is in it, it is used as that; elsewhere the settings inside it fill the form, as a pasted text with settings does. The
// forms of both work without this as well.
const box = document.getElementById("recall");
const form = box.querySelector("[data-recall-form]");
const SETTINGS = /(^|\n)Steps: \d+, /;
const { infotext, image } = form.elements;
const panel = () => document.getElementById("source");
const isInPanel = (element) => Boolean(element?.closest?.("#source"));
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");

function send() {
  box.open = true;
  form.requestSubmit();
}

function use(file, place) {
  const input = isInPanel(place) ? document.getElementById("source-file") : image;
  const transfer = new DataTransfer();
  transfer.items.add(file);
  input.files = transfer.files;
  if (input !== image) return input.dispatchEvent(new Event("change", { bubbles: true }));
  infotext.value = "";
  return send();
}

document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  panel().classList.toggle("dropping", isInPanel(event.target));
});
document.addEventListener("dragleave", (event) => {
  if (!isInPanel(event.relatedTarget)) panel().classList.remove("dropping");
});
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  panel().classList.remove("dropping");
  const [file] = event.dataTransfer.files;
  if (file) use(file, event.target);
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files ?? [];
  const text = event.clipboardData?.getData("text/plain") ?? "";
  if (!file && (event.target === infotext || !SETTINGS.test(text))) return;
  event.preventDefault();
  if (file) return use(file, document.activeElement);
  infotext.value = text;
  image.value = "";
  send();
});

// the panel was replaced: the focus stays in it, and the image of before is out of date
document.addEventListener("htmx:afterSwap", (event) => {
  if (event.target.id !== "source") return;
  if (document.activeElement === document.body) panel().querySelector("[data-weight-slider], summary").focus();
  panel().dispatchEvent(new Event("input", { bubbles: true }));
});
