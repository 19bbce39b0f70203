"""Openly licensed emoji artwork as named subjects with captions, each drawn in several styles.

Unicode gives every emoji one short name, and the artwork sets keep to it, so a subject comes in up
to three styles. From that a small model learns what a thing is, apart from how it is drawn.
"""

import io
import json
import random
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image


class ArtworkError(Exception):
    """The artwork cannot be downloaded or read; the message says what to do."""


class ArtworkSet(StrEnum):
    """A set of artwork; the value is the word for its style in captions."""

    NOTO = "noto"
    TWEMOJI = "twemoji"
    FLUENT = "fluent"


PACKAGES: Mapping[ArtworkSet, str] = {
    ArtworkSet.NOTO: "@iconify-json/noto",
    ArtworkSet.TWEMOJI: "@iconify-json/twemoji",
    ArtworkSet.FLUENT: "@iconify-json/fluent-emoji-flat",
}
NAMES_PACKAGE = "emojibase-data"
GROUPS: Mapping[int, str] = {
    3: "animals-nature",
    4: "food-drink",
    5: "travel-places",
    6: "activities",
}
"""Groups of `emojibase-data` with objects, without faces, signs or flags."""

SKIPPED_NAME = re.compile(r"skin tone|flag|keycap|clock|thirty|family|letter|[^\x00-\x7f]")
"""Near-duplicates and drawings of letters teach a small model little."""

BACKGROUNDS: Mapping[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (24, 24, 27),
    "gray": (148, 153, 160),
    "red": (214, 64, 58),
    "orange": (240, 145, 55),
    "yellow": (250, 214, 90),
    "green": (92, 168, 98),
    "teal": (64, 160, 160),
    "blue": (78, 124, 212),
    "purple": (140, 96, 190),
    "pink": (240, 160, 186),
}


@dataclass(frozen=True)
class ArtworkSubject:
    """A named subject with a few keywords, and one SVG document per artwork set."""

    name: str
    keywords: tuple[str, ...]
    drawings: Mapping[ArtworkSet, str]


def fetch_artwork(folder: Path) -> None:
    """Download the four packages as tarballs into `folder` with `npm pack` (11 MB)."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = [*PACKAGES.values(), NAMES_PACKAGE]
    try:
        subprocess.run(
            ["npm", "pack", "--silent", *packages], cwd=folder, check=True, capture_output=True
        )
    except FileNotFoundError as error:
        raise ArtworkError(
            "npm is not installed. Install it, or download the tarballs of "
            f"{', '.join(packages)} and pass their folder with --artwork."
        ) from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip()
        raise ArtworkError(
            f"npm could not download the artwork. Check the connection: {reason}"
        ) from error


def load_artwork(folder: Path | None = None) -> list[ArtworkSubject]:
    """Every subject that all three sets contain, in Unicode's order.

    `folder` holds the tarballs as `npm pack` names them; without it they are downloaded.
    """
    if folder is None:
        with tempfile.TemporaryDirectory() as fetched:
            fetch_artwork(Path(fetched))
            return load_artwork(Path(fetched))
    names = _read_json(folder, NAMES_PACKAGE, "en/data.json")
    sets = {hand: _read_json(folder, name, "icons.json") for hand, name in PACKAGES.items()}
    subjects = []
    for entry in sorted(names, key=lambda entry: entry.get("order", 0)):
        name = entry["label"].lower()
        if entry.get("group") not in GROUPS or SKIPPED_NAME.search(name):
            continue
        slug = re.sub(r"[^a-z0-9]+", "-", name).strip("-")
        drawings = {hand: svg for hand, icons in sets.items() if (svg := _svg(icons, slug))}
        if len(drawings) == len(PACKAGES):
            words = re.sub(r"[^a-z0-9 ]+", " ", name)
            keywords = tuple(tag for tag in entry.get("tags", []) if tag.isascii())
            subjects.append(ArtworkSubject(" ".join(words.split()), keywords, drawings))
    return subjects


def _read_json(folder: Path, package: str, member: str) -> Any:
    stem = package.removeprefix("@").replace("/", "-")
    tarballs = sorted(folder.glob(f"{stem}-[0-9]*.tgz"))
    if not tarballs:
        raise ArtworkError(f"{folder} has no tarball of {package}. Run `npm pack {package}` there.")
    with tarfile.open(tarballs[-1]) as tarball:
        file = tarball.extractfile(f"package/{member}")
        if file is None:
            raise ArtworkError(f"{tarballs[-1].name} does not contain {member}. Download it again.")
        return json.load(file)


def _svg(icons: Mapping[str, Any], slug: str) -> str | None:
    """The SVG document of one icon, or None when the set lacks it."""
    icon = icons["icons"].get(slug)
    if icon is None:
        parent = icons.get("aliases", {}).get(slug)
        # A flipped alias shows another image than its parent, so it is left out.
        icon = icons["icons"].get(parent["parent"]) if parent and len(parent) == 1 else None
    if icon is None:
        return None
    width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
    )


def read_subjects(path: Path) -> list[ArtworkSubject]:
    """Subjects from a JSON file written by `write_subjects`."""
    return [
        ArtworkSubject(
            entry["name"],
            tuple(entry["keywords"]),
            {ArtworkSet(hand): svg for hand, svg in entry["drawings"].items()},
        )
        for entry in json.loads(path.read_text(encoding="utf-8"))["subjects"]
    ]


def write_subjects(subjects: Iterable[ArtworkSubject], path: Path, *, notice: str) -> None:
    """Write a JSON file with the drawings and the notice that their licenses require."""
    entries = [
        {
            "name": s.name,
            "keywords": list(s.keywords),
            "drawings": {hand.value: svg for hand, svg in s.drawings.items()},
        }
        for s in subjects
    ]
    text = json.dumps({"notice": notice, "subjects": entries}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def render_drawing(svg: str, size: int, *, margin: float = 0.0) -> Image.Image:
    """The drawing as RGBA, `size` pixels square, with `margin` (share of a side) all around."""
    inner = max(1, round(size * (1 - 2 * margin)))
    png = resvg_py.svg_to_bytes(svg_string=svg, width=inner, height=inner, skip_system_fonts=True)
    drawing = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    canvas = Image.new("RGBA", (size, size), (0, 0, 0, 0))
    canvas.paste(drawing, ((size - drawing.width) // 2, (size - drawing.height) // 2))
    return canvas


def lay_over(drawing: Image.Image, background: tuple[int, int, int], size: int) -> Image.Image:
    """The RGBA drawing on a plain color, area-averaged to `size` pixels square, RGB."""
    board = Image.new("RGBA", drawing.size, (*background, 255))
    board.alpha_composite(drawing)
    return board.convert("RGB").resize((size, size), Image.Resampling.BOX)


def to_pixels(image: Image.Image) -> NDArray[np.float32]:
    """The image as (3, height, width) in [-1, 1]."""
    return (np.asarray(image, dtype=np.float32) / 127.5 - 1).transpose(2, 0, 1)


def write_caption(
    subject: ArtworkSubject, hand: ArtworkSet, background: str, *, rng: random.Random
) -> str:
    """A caption like a prompt: the name, sometimes a keyword, the style, the background."""
    words = subject.name
    if subject.keywords and rng.random() < 0.2:
        words = f"{rng.choice(subject.keywords)} {words}"
    if rng.random() < 0.5:
        words = f"{words}, {hand.value} style"
    if background != "white" or rng.random() < 0.2:
        words = f"{words} on a {background} background"
    return words
