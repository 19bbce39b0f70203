// Shows the answer to an upload: its tiles, the facts and the steps of the dataset. `showUploaded` gives what
// became of each file, for the panel of upload.js.
const root = document.querySelector("[data-upload]");
const MOST_TILES = 192; // more are on other pages
const find = (name) => root.querySelector(`[data-${name}]`);

// false: the tile is on another page
function place(tile) {
  const tiles = find("tiles");
  if (!tiles) return true;
  const shown = document.getElementById(tile.id);
  const area = shown?.querySelector("[data-caption]");
  if (area && (area === document.activeElement || window.brushwork.isCaptionDirty?.(area))) return true;
  if (shown) shown.replaceWith(tile);
  else if (tiles.querySelector("[data-more]")) return true; // it comes with its page
  else if (tiles.querySelectorAll("[data-tile]").length >= MOST_TILES) return false;
  else tiles.append(tile);
  window.htmx?.process(tile);
  return true;
}

window.brushwork.showUploaded = (html) => {
  const answer = new DOMParser().parseFromString(html, "text/html");
  const placed = [...answer.querySelectorAll("[data-tile]")].map(place);
  for (const part of answer.querySelectorAll("#dataset-facts, #edit-steps")) {
    document.getElementById(part.id)?.replaceWith(part);
    window.htmx?.process(part);
  }
  for (const name of ["images-changed", "captions-changed"]) document.body.dispatchEvent(new CustomEvent(name));
  return {
    taken: [...answer.querySelectorAll("[data-taken]")].map((item) => item.dataset.taken),
    refused: [...answer.querySelectorAll("[data-refused]")].map((item) => ({ name: item.dataset.refused, reason: item.textContent })),
    isPartial: placed.includes(false) || Boolean(answer.querySelector("[data-more-added]")), // some have no tile in it
  };
};
