// Shows the answer to an upload: its tiles and the counts of the dataset. `showUploaded` gives what
// became of each file, for the panel of upload.js.
(() => {
  const root = document.querySelector("[data-upload]");
  if (!root) return;
  const find = (name) => root.querySelector(`[data-${name}]`);

  function place(tile) {
    const tiles = find("tiles");
    if (!tiles) return;
    const shown = document.getElementById(tile.id);
    const area = shown?.querySelector("[data-caption]");
    if (area && (area === document.activeElement || window.brushwork.isCaptionDirty?.(area))) return;
    if (shown) shown.replaceWith(tile);
    else if (!tiles.querySelector("[data-more]")) tiles.append(tile); // else it comes with its page
    else return;
    window.htmx?.process(tile);
  }

  // the counts come from the server; the selected filter belongs to this page
  function refresh(id, answer) {
    const here = document.getElementById(id);
    const there = answer.getElementById(id);
    if (!here || !there) return;
    if (id === "dataset-filters") {
      here.dataset.total = there.dataset.total;
      for (const count of there.querySelectorAll("[data-count]")) {
        here.querySelector(`[data-count="${count.dataset.count}"]`).textContent = count.textContent;
      }
    } else here.replaceWith(there);
  }

  window.brushwork.showUploaded = (html) => {
    const answer = new DOMParser().parseFromString(html, "text/html");
    for (const tile of answer.querySelectorAll("[data-tile]")) place(tile);
    for (const id of ["dataset-facts", "dataset-filters"]) refresh(id, answer);
    document.body.dispatchEvent(new CustomEvent("captions-changed")); // the findings, too
    return {
      taken: [...answer.querySelectorAll("[data-taken]")].map((item) => item.dataset.taken),
      refused: [...answer.querySelectorAll("[data-refused]")].map((item) => ({ name: item.dataset.refused, reason: item.textContent })),
      isPartial: Boolean(answer.querySelector("[data-more-added]")), // some have no tile in it
    };
  };
})();
