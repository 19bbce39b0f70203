// The texts in the panel of upload.js: a row for each file, the outcome of all, and how far it is
// for those who hear it.
const { make } = window.brushwork;
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function makeRow(name) {
  const words = make("span", { className: "upload-name", textContent: name });
  const bar = make("progress", { max: 1, value: 0, ariaLabel: name });
  return make("li", {}, words, make("span", { className: "hint" }), bar);
}

// what is not done yet: the images of an archive as soon as it says how many there are
function toGo(parts) {
  const open = parts.filter((part) => !part.isSettled);
  const count = open.reduce((sum, part) => sum + (part.total ? part.total - part.done : 1), 0);
  return plural(count, open.some((part) => part.total) ? "image" : "file");
}

function summaryOf(parts, counts, stopped, isBusy) {
  const words = isBusy ? [`Uploading, ${toGo(parts)} to go`] : [];
  if (counts.new || !(isBusy || stopped.length)) words.push(`${plural(counts.new, "image")} added`);
  if (counts.again) words.push(`${plural(counts.again, "image")} already here`);
  if (counts.caption) words.push(`${plural(counts.caption, "caption")} read`);
  if (counts.refused) words.push(`${counts.refused} not added`);
  if (counts.failed) words.push(`${counts.failed} not sent`);
  if (stopped.length) words.push(`canceled: ${stopped.length > 3 ? plural(stopped.length, "file") : stopped.join("; ")}`);
  words[0] = words[0][0].toUpperCase() + words[0].slice(1);
  return words;
}

// aloud: how it begins, each tenth, and what became of it; not each image
function sayAt(place) {
  let said = -1; // the tenth that was said last
  return (words, share, isBusy) => {
    const tenth = Math.floor(10 * share);
    if (isBusy && said === tenth) return;
    place.textContent = isBusy && tenth ? `${10 * tenth} % uploaded` : words;
    said = isBusy ? tenth : -1;
  };
}

window.brushwork.uploadWords = { makeRow, summaryOf, sayAt };
