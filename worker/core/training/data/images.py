"""Pictures and their captions, as files: found, named by their content, and opened safely."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worker.core.training.errors import DatasetError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
METADATA = "metadata.jsonl"
MAX_PIXELS = 120_000_000
MAX_CAPTION_LENGTH = 10_000
MAX_REPEATS = 1_000
FORMATS = ("PNG", "JPEG", "WEBP")
SIDEWAYS = frozenset({5, 6, 7, 8})
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PAPER = (255, 255, 255)
OPAQUE = 255


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """A picture file, the hash of its content and the words that describe it.

    It is shown `repeats` times as often as others. A regularisation picture shows what the style
    is not, so that the base does not forget it (Ruiz et al. 2022, arXiv 2208.12242).
    """

    path: Path
    sha256: str
    caption: str
    repeats: int = 1
    never_flip: bool = False
    is_regularisation: bool = False


class Line(BaseModel):
    """A line of `metadata.jsonl`; what other programs write beside it is passed over."""

    model_config = ConfigDict(extra="ignore", strict=True)

    file_name: str
    text: str = ""
    repeats: int = Field(1, ge=1, le=MAX_REPEATS)
    never_flip: bool = False
    regularisation: bool = False


def read_folder(folder: Path) -> list[TrainingImage]:
    """Give the pictures of a folder with their captions, in the order of their names.

    Captions come from `metadata.jsonl` (a `Line` each) when there is one, which then also chooses
    the pictures; else from a `.txt` file beside each picture. A picture without a caption has an
    empty one. Raises DatasetError.
    """
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}.")
    metadata = folder / METADATA
    lines = _read_metadata(metadata) if metadata.is_file() else _read_sidecars(folder)
    if not lines:
        raise DatasetError(f"There are no pictures (PNG, JPEG or WebP) in {folder}.")
    return [
        TrainingImage(
            path,
            _sha256(path),
            line.text,
            repeats=line.repeats,
            never_flip=line.never_flip,
            is_regularisation=line.regularisation,
        )
        for path, line in sorted(lines.items(), key=lambda pair: pair[0])
    ]


def open_picture(image: TrainingImage) -> Image.Image:
    """Give the picture upright in RGB, transparency laid on white paper. Raises DatasetError."""
    return open_with_opacity(image)[0]


def open_with_opacity(image: TrainingImage) -> tuple[Image.Image, Image.Image | None]:
    """Give the picture as `open_picture` does, and how opaque it is (L), None when it all is."""
    with _opened(image) as opened:
        turn = TURNS.get(_orientation(opened))
        opened.load()
        upright = opened.transpose(turn) if turn is not None else opened
        opacity = None
        if upright.has_transparency_data:
            alpha = upright.convert("RGBA").getchannel("A")
            opaque = alpha.histogram()[OPAQUE]
            opacity = alpha if opaque < alpha.width * alpha.height else None
        return _on_paper(upright), opacity


def picture_size(image: TrainingImage) -> tuple[int, int]:
    """Give the upright width and height from the file's header alone. Raises DatasetError."""
    with _opened(image) as opened:
        turned = _orientation(opened) in SIDEWAYS
        return (opened.height, opened.width) if turned else opened.size


def _orientation(opened: Image.Image) -> int:
    """The EXIF orientation as the header gives it.

    `getexif()` would look behind a PNG's pixels too, and so decode the whole picture to find that
    there is nothing: three quarters of the start of a run on 2,000 encoded pictures.
    """
    exif = Image.Exif()
    with suppress(Exception):  # EXIF is written by anything; a broken one says nothing
        exif.load(opened.info.get("exif") or b"")
    return int(exif.get(ExifTags.Base.Orientation, 1))


@contextmanager
def _opened(image: TrainingImage) -> Iterator[Image.Image]:
    name = image.path.name
    try:
        with Image.open(image.path, formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise DatasetError(f"{name} has more than {MAX_PIXELS:,} pixels.")
            yield opened
    except FileNotFoundError as error:
        raise DatasetError(f"{name} is no longer there.") from error
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{name} is not a PNG, JPEG or WebP picture.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{name} is damaged and cannot be read.") from error


def check_images(images: Sequence[TrainingImage]) -> None:
    """Raise DatasetError when there is nothing to train on."""
    if not any(not image.is_regularisation for image in images):
        raise DatasetError("The dataset is empty: add at least one picture.")


def dataset_fingerprint(images: Sequence[TrainingImage]) -> str:
    """A hash of contents, captions and order: the same only for the very same training data."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(json.dumps([image.sha256, image.caption, *_rules(image)]).encode())
    return digest.hexdigest()


def _rules(image: TrainingImage) -> list[int | bool]:
    return [image.repeats, image.never_flip, image.is_regularisation]


def _on_paper(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    paper = Image.new("RGBA", layer.size, (*PAPER, 255))
    return Image.alpha_composite(paper, layer).convert("RGB")


def _read_metadata(metadata: Path) -> dict[Path, Line]:
    lines: dict[Path, Line] = {}
    for number, text in enumerate(_read_text(metadata).splitlines(), start=1):
        if text.strip():
            line = _read_line(text, f"Line {number} of {METADATA}")
            path = metadata.parent / line.file_name
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                raise DatasetError(
                    f"Line {number} of {METADATA} names {line.file_name}: no such picture."
                )
            lines[path] = line
    return lines


def _read_line(text: str, where: str) -> Line:
    try:
        line = Line.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        if not problem["loc"]:
            raise DatasetError(f"{where} is not a JSON object.") from error
        raise DatasetError(f"{where}: {problem['loc'][0]}: {problem['msg']}.") from error
    if Path(line.file_name).is_absolute() or ".." in Path(line.file_name).parts:
        raise DatasetError(f"{where} names a file outside of the folder.")
    return line.model_copy(update={"text": _checked(line.text, where)})


def _read_sidecars(folder: Path) -> dict[Path, Line]:
    lines = {}
    for path in folder.iterdir():
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            sidecar = path.with_suffix(".txt")
            text = _read_text(sidecar) if sidecar.is_file() else ""
            lines[path] = Line(file_name=path.name, text=_checked(text, sidecar.name))
    return lines


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path.name} is not a text in UTF-8.") from error


def _checked(caption: str, where: str) -> str:
    if len(caption) > MAX_CAPTION_LENGTH:
        raise DatasetError(f"{where}: the caption has more than {MAX_CAPTION_LENGTH:,} characters.")
    return caption.strip()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
