"""WD taggers: tags of an image by onnxruntime, as SmilingWolf's repositories have them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.core.captioning.interface import CaptionAnswer
from worker.core.captioning.local.inspect import INSTALL_TAGGER, ONNX, TAGS, UnusableModel
from worker.core.eyes.images import as_rgb

GENERAL, CHARACTER = "0", "4"
"""Categories of tags that describe what is shown; the others are ratings."""

MIN_PROBABILITY = {GENERAL: 0.35, CHARACTER: 0.85}
"""The probability from which a tag is given, as its authors use it."""

CUDA = "CUDAExecutionProvider"  # of the package onnxruntime-gpu
WORD_LENGTH = 4  # shorter names may be faces, such as ^_^, whose underscores stay
NO_TAGS = "No tag is likely enough: the likeliest is “{name}” at {share:.0%}."


class WdTagger:
    """A model that writes tags, the likeliest first; it follows no prompt."""

    def __init__(self, title: str, session: Any, tags: list[tuple[str, str]]) -> None:
        self.title = title
        self.device = "cuda" if CUDA in session.get_providers() else "cpu"
        self._session = session
        self._tags = tags
        (self._input,) = session.get_inputs()
        self._side = int(self._input.shape[1])

    def caption(self, image: Image.Image, prompt: str) -> CaptionAnswer:
        pixels = tagger_input(image, self._side)
        (found,) = self._session.run(None, {self._input.name: pixels})
        shares = [
            (float(share), name, MIN_PROBABILITY[category])
            for share, (name, category) in zip(found[0], self._tags, strict=True)
            if category in MIN_PROBABILITY
        ]
        likely = sorted((row for row in shares if row[0] >= row[2]), reverse=True)
        if not likely:
            share, name, _ = max(shares)
            return CaptionAnswer("", NO_TAGS.format(name=name, share=share))
        return CaptionAnswer(", ".join(name for _, name, _ in likely))


def tagger_input(image: Image.Image, side: int) -> NDArray[np.float32]:
    """(1, side, side, 3) in BGR from 0 to 255, on a white square: what the models learned from."""
    rgb = as_rgb(image)
    canvas = Image.new("RGB", (max(rgb.size),) * 2, (255, 255, 255))
    canvas.paste(rgb, tuple((max(rgb.size) - edge) // 2 for edge in rgb.size))  # type: ignore[arg-type]
    small = canvas.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(small, dtype=np.float32)[None, :, :, ::-1])


def load_wd_tagger(folder: Path, *, title: str, device: str) -> WdTagger:
    """The tagger in a folder. Raises UnusableModel."""
    try:
        import onnxruntime
    except ImportError:
        raise UnusableModel(INSTALL_TAGGER) from None
    wanted = ["CPUExecutionProvider"]
    if device.startswith("cuda"):
        wanted.insert(0, CUDA)
    here = onnxruntime.get_available_providers()
    try:
        session = onnxruntime.InferenceSession(
            folder / ONNX, providers=[name for name in wanted if name in here]
        )
        tags = read_tags(folder / TAGS)
        tagger = WdTagger(title, session, tags)
    except Exception as error:  # onnxruntime has errors of its own for each state
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnusableModel(f"“{title}” cannot be opened: {reason}") from error
    if session.get_outputs()[0].shape[-1] != len(tags):
        raise UnusableModel(f"“{title}” has another number of tags than {TAGS}.")
    return tagger


def read_tags(path: Path) -> list[tuple[str, str]]:
    """Name and category of each tag, in the order of the model's answers."""
    with path.open(encoding="utf-8", newline="") as file:
        return [(_readable(row["name"]), row["category"]) for row in csv.DictReader(file)]


def _readable(name: str) -> str:
    """A tag as people write it: “long hair”; faces stay as they are."""
    return name.replace("_", " ") if len(name) >= WORD_LENGTH else name
