// The meaning of names of uploaded files: which captions go with which image, and the name of a new
// dataset; for upload.js.
const KNOWN = /\.(png|jpe?g|webp|zip)$/i;
const TEXT = /\.(txt|caption|jsonl)$/i;
const isKnown = (file) => KNOWN.test(file.name);
const isText = (file) => TEXT.test(file.name);

// A caption is sent with its image; captions without an image are sent last.
function batches(files) {
  const stem = (file) => (file.path ?? file.name).replace(/\.[^.]+$/, "").toLowerCase();
  const texts = new Map(); // an image may have several: the server says which one counts
  for (const file of files.filter(isText)) texts.set(stem(file), [...(texts.get(stem(file)) ?? []), file]);
  const sets = files.filter((file) => !isText(file)).map((file) => {
    const beside = texts.get(stem(file)) ?? [];
    texts.delete(stem(file));
    return [file, ...beside];
  });
  return [...sets, ...[...texts.values()].flat().map((file) => [file])];
}

function nameFor(files) {
  const folder = files[0].path?.split("/")[0];
  const archive = files.length === 1 && /\.zip$/i.test(files[0].name) && files[0].name.slice(0, -4);
  const name = (folder && folder !== files[0].name && folder) || archive || "New dataset";
  return name.replace(/[_-]+/g, " ").trim().slice(0, 120) || "New dataset";
}

window.brushwork.uploadNames = { batches, isKnown, isText, nameFor };
