// Searches by the image that is chosen, and, for other scripts, by one that is dropped or pasted.
const form = document.querySelector("[data-style-search]");
const input = form.elements.file;
form.querySelector("button").hidden = true;
input.addEventListener("change", () => input.files.length && form.requestSubmit());
window.brushwork.searchByImage = (file) => {
  const chosen = new DataTransfer();
  chosen.items.add(file);
  input.files = chosen.files;
  form.requestSubmit();
};
