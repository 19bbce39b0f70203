// An image that is dropped on the playground, or a text with settings that is pasted into it, fills the form: both go
// through the form below it, which works without this as well.
(() => {
  const box = document.getElementById("recall");
  const form = box?.querySelector("[data-recall-form]");
  if (!form) return;
  const SETTINGS = /(^|\n)Steps: \d+, /;
  const { infotext, image } = form.elements;

  function send() {
    box.open = true;
    form.requestSubmit();
  }

  function useFile(file) {
    const transfer = new DataTransfer();
    transfer.items.add(file);
    image.files = transfer.files;
    infotext.value = "";
    send();
  }

  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    if (event.dataTransfer.files.length) useFile(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    const text = event.clipboardData?.getData("text/plain") ?? "";
    if (file) {
      event.preventDefault();
      useFile(file);
    } else if (SETTINGS.test(text) && event.target !== infotext) {
      event.preventDefault();
      infotext.value = text;
      image.value = "";
      send();
    }
  });
})();
