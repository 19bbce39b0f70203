"""Openly licensed emoji artwork as named subjects, each drawn in several styles.

Unicode gives every emoji one short name, and the artwork sets keep to it, so a subject comes in up
to three styles. From that a small model learns what a thing is, apart from how it is drawn.
"""

import io
import json
import re
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from PIL import Image
from pydantic import TypeAdapter

from tools.starter.errors import BuildError
from tools.starter.plain_names import PLAIN_NAMES


class ArtworkError(BuildError):
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
    7: "objects",
}
"""Groups of `emojibase-data` with things to draw: no faces, people, signs or flags."""

SKIPPED_NAME = re.compile(r"skin tone|flag|keycap|thirty|family|letter|[^\x00-\x7f]")
"""Near-duplicates and drawings of letters teach a small model little."""

SKIPPED_OBJECT = re.compile(
    r"muted|speaker (low|medium)|bell with slash|level slider|control knobs|with arrow|pager"
    r"|low battery|trackball|computer disk|decorative cover|page with curl|page facing"
    r"|bookmark tabs|^label$|banknote|money with wings|chart|e-mail|incoming|tray|ballot"
    r"|card index|file folder|tear-off|spiral|card file|file cabinet|locked with|unlocked|linked"
    r"|hammer and|white cane|broken chain|x-ray|nazar|hamsa|placard|identification"
    r"|glass tilted right|camera with flash|musical notes|(green|orange) book|rolled-up|diya"
    r"|ledger|postal horn|round pushpin|old key|clutch bag|drop of blood|coffin|headstone"
    r"|cigarette|long drum|studio microphone|telephone receiver|black nib|petri|diamond"
)
"""Objects that differ from another one by a mark too small to draw, and papers full of text."""

KEYWORD = re.compile(r"[a-z0-9 ]+")
NO_NAME = frozenset({"female", "male"})
"""Keywords that cannot stand for a name, although only one subject has them."""

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Shares of red, green and blue in the lightness of a color (ITU-R BT.601)."""

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

DARK_GROUNDS: Mapping[str, tuple[int, int, int]] = {
    "black": BACKGROUNDS["black"],
    "dark gray": (56, 60, 66),
    "dark red": (92, 32, 34),
    "dark green": (32, 76, 50),
    "dark blue": (30, 46, 94),
    "dark purple": (62, 42, 90),
}
"""Grounds for drawings with light outlines."""

GROUNDS: Mapping[str, tuple[int, int, int]] = {**BACKGROUNDS, **DARK_GROUNDS}


@dataclass(frozen=True)
class ArtworkSubject:
    """A named subject with other words for it, and one SVG document per artwork set."""

    name: str
    keywords: tuple[str, ...]
    """Words about it, without the names of other subjects."""
    drawings: Mapping[ArtworkSet, str]
    group: str = ""
    plain_names: tuple[str, ...] = ()
    """Everyday names that mean this subject and no other: "tree" for one of several trees."""
    only_here: tuple[str, ...] = ()
    """The keywords that no other subject has, which can stand for the name."""


def fetch_artwork(folder: Path) -> None:
    """Download the packages that `folder` lacks as tarballs with `npm pack` (12 MB in all)."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = [name for name in (*PACKAGES.values(), NAMES_PACKAGE) if not _tarballs(folder, name)]
    if not packages:
        return
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
    names = read_package(folder, NAMES_PACKAGE, "en/data.json")
    sets = {hand: read_package(folder, name, "icons.json") for hand, name in PACKAGES.items()}
    subjects = []
    for entry in sorted(names, key=lambda entry: entry.get("order", 0)):
        name, group = entry["label"].lower(), GROUPS.get(entry.get("group", -1))
        if group is None or SKIPPED_NAME.search(name):
            continue
        if group == "objects" and SKIPPED_OBJECT.search(name):
            continue
        slug = icon_name(name)
        drawings = {hand: svg for hand, icons in sets.items() if (svg := svg_of(icons, slug))}
        if len(drawings) == len(PACKAGES):
            tags = tuple(dict.fromkeys(tag.lower() for tag in entry.get("tags", [])))
            keywords = tuple(tag for tag in tags if KEYWORD.fullmatch(tag))
            subjects.append(ArtworkSubject(plain_words(name), keywords, drawings, group))
    return _with_other_names(subjects)


def ordinary_words(folder: Path) -> list[str]:
    """The English words in the names and keywords of all groups, for use as unknown words."""
    entries = read_package(folder, NAMES_PACKAGE, "en/data.json")
    texts = [text for entry in entries for text in (entry["label"], *entry.get("tags", ()))]
    return sorted({word for text in texts for word in re.findall(r"[a-z]{3,}", text.lower())})


def plain_words(name: str) -> str:
    """The name in the letters and digits of a prompt: "t-rex" becomes "t rex"."""
    return " ".join(re.sub(r"[^a-z0-9 ]+", " ", name.lower()).split())


def _with_other_names(subjects: Sequence[ArtworkSubject]) -> list[ArtworkSubject]:
    """The subjects with their plain names, and without keywords that name another subject."""
    names = {subject.name for subject in subjects}
    plain = {name: subject for name, subject in PLAIN_NAMES.items() if name not in names}
    count = Counter(keyword for subject in subjects for keyword in subject.keywords)
    found = []
    for subject in subjects:
        own = tuple(name for name, meant in plain.items() if meant == subject.name)
        keywords = tuple(
            keyword
            for keyword in subject.keywords
            if keyword in own or (keyword not in names and keyword not in plain)
        )
        only_here = tuple(
            keyword
            for keyword in keywords
            if count[keyword] == 1 and keyword not in own and keyword not in NO_NAME
        )
        found.append(replace(subject, keywords=keywords, plain_names=own, only_here=only_here))
    return found


def read_package(folder: Path, package: str, member: str) -> Any:
    """The JSON file `member` of the package, from its newest tarball. Raises `ArtworkError`."""
    tarballs = _tarballs(folder, package)
    if not tarballs:
        raise ArtworkError(f"{folder} has no tarball of {package}. Run `npm pack {package}` there.")
    try:
        with tarfile.open(tarballs[-1]) as tarball:
            file = tarball.extractfile(f"package/{member}")
            return json.load(file) if file else None
    except (tarfile.TarError, KeyError, EOFError, OSError, ValueError) as error:
        raise ArtworkError(
            f"{tarballs[-1]} is damaged or does not contain {member}. "
            f"Delete it and download it again with `npm pack {package}`."
        ) from error


def _tarballs(folder: Path, package: str) -> list[Path]:
    """The tarballs of a package as `npm pack` names them, the newest last."""
    stem = package.removeprefix("@").replace("/", "-")
    return sorted(folder.glob(f"{stem}-[0-9]*.tgz"))


def icon_name(label: str) -> str:
    """The name of this label's icon in the sets: "t-rex" for "T-Rex"."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def svg_of(icons: Mapping[str, Any], slug: str) -> str | None:
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
    """The subjects with their drawings, by hand, in a JSON file."""
    entries = json.loads(path.read_text(encoding="utf-8"))["subjects"]
    return TypeAdapter(list[ArtworkSubject]).validate_python(entries)


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
