"""Draws the images of the example styles.

Each subject is drawn from the set that its bare name means to the base: then an adapter learns the
style and no other shapes.

The same artwork gives the same pixels: all grain comes from a generator seeded with the name.
"""

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from tools.examples.chalk import draw_in_chalk
from tools.examples.linocut import draw_as_linocut
from tools.starter.artwork import ArtworkSet, ArtworkSubject
from worker.core.starter.examples import CHALKBOARD, LINOCUT, Example
from worker.core.starter.prompt_words import subject_for

DRAWN_SUBJECTS: tuple[str, ...] = (
    "fox", "mushroom", "sailboat", "cactus", "tropical fish", "avocado", "pear", "whale",
    "penguin", "cherries", "watermelon", "carrot", "tulip", "sunflower", "lemon", "pineapple",
    "duck", "cupcake", "panda", "bear", "automobile", "butterfly", "ice cream", "teapot",
)  # fmt: skip
"""Various shapes, colors and outlines; none of `SUBJECTS`, which check what was learned."""

WEBP_QUALITY = 84
DRAW: Mapping[str, Callable[..., Image.Image]] = {
    CHALKBOARD.key: draw_in_chalk,
    LINOCUT.key: draw_as_linocut,
}


def draw_subject(example: Example, subject: ArtworkSubject) -> Image.Image:
    """The subject in this style, RGB, 512 px square."""
    seed = zlib.crc32(subject.name.encode())
    return DRAW[example.key](meant_drawing(subject), seed=seed)


def meant_drawing(subject: ArtworkSubject) -> str:
    """The SVG drawing that the subject's bare name means to the base; Noto's if it knows none."""
    known = subject_for(subject.name)
    return subject.drawings[ArtworkSet(known.drawn_by) if known else ArtworkSet.NOTO]


def draw_example(example: Example, subjects: Sequence[ArtworkSubject], out: Path) -> None:
    """Write the example's images to `out`: a WebP per subject, and `metadata.jsonl`."""
    out.mkdir(parents=True, exist_ok=True)
    by_name = {subject.name: subject for subject in subjects}
    lines = []
    for name in DRAWN_SUBJECTS:
        file_name = f"{name.replace(' ', '-')}.webp"
        image = draw_subject(example, by_name[name])
        image.save(out / file_name, quality=WEBP_QUALITY, method=6)
        lines.append(json.dumps({"file_name": file_name, "text": example.caption(name)}))
    (out / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
