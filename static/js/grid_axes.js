// The form of a new grid: a value that is unticked leaves the text of its axis, and a field of all images whose setting an
// axis varies is marked as not used.
const varied = () => [...document.querySelectorAll("#grid-axes select")].map((select) => select.value);

function offer() {
  for (const note of document.querySelectorAll("[data-varied]")) note.hidden = !varied().includes(note.dataset.varied);
  for (const list of document.querySelectorAll(".axis-values")) list.hidden = !list.dataset.values;
}

// what is ticked, as a person would write it
function write(list) {
  const boxes = [...list.querySelectorAll("input")];
  const ticked = boxes.filter((box) => box.checked).map((box) => box.value);
  const text = document.getElementById(list.dataset.values);
  const { run } = list.dataset; // all of a run are its number alone
  if (run) text.value = ticked.length === boxes.length ? run : `${run}: ${ticked.join(", ")}`;
  else text.value = ticked.join(list.dataset.joiner);
  text.dispatchEvent(new Event("input", { bubbles: true }));
}

window.brushwork.on("change", "[data-values]", write);
window.brushwork.on("change", "#grid-axes", offer);
document.addEventListener("htmx:afterSettle", offer);
offer();
