"""Pictures and their captions, as files: found, named by their content, and opened safely."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from worker.training.errors import DatasetError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
METADATA = "metadata.jsonl"
MAX_PIXELS = 120_000_000
MAX_CAPTION_LENGTH = 10_000
FORMATS = ("PNG", "JPEG", "WEBP")
SIDEWAYS = frozenset({5, 6, 7, 8})
PAPER = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """A picture file, the hash of its content and the words that describe it."""

    path: Path
    sha256: str
    caption: str


def read_folder(folder: Path) -> list[TrainingImage]:
    """Give the pictures of a folder with their captions, in the order of their names.

    Captions come from `metadata.jsonl` (one `{"file_name": ..., "text": ...}` a line) when there
    is one, which then also chooses the pictures; else from a `.txt` file beside each picture. A
    picture without a caption has an empty one. Raises DatasetError.
    """
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}.")
    metadata = folder / METADATA
    captions = _read_metadata(metadata) if metadata.is_file() else _read_sidecars(folder)
    if not captions:
        raise DatasetError(f"There are no pictures (PNG, JPEG or WebP) in {folder}.")
    return [
        TrainingImage(path, _sha256(path), caption) for path, caption in sorted(captions.items())
    ]


def open_picture(image: TrainingImage) -> Image.Image:
    """Give the picture upright in RGB, transparency laid on white paper. Raises DatasetError."""
    with _opened(image) as opened:
        opened.load()
        return _on_paper(ImageOps.exif_transpose(opened))


def picture_size(image: TrainingImage) -> tuple[int, int]:
    """Give the upright width and height from the file's header alone. Raises DatasetError."""
    with _opened(image) as opened:
        turned = opened.getexif().get(ExifTags.Base.Orientation) in SIDEWAYS
        return (opened.height, opened.width) if turned else opened.size


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
    if not images:
        raise DatasetError("The dataset is empty: add at least one picture.")


def dataset_fingerprint(images: Sequence[TrainingImage]) -> str:
    """A hash of contents, captions and order: the same only for the very same training data."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(json.dumps([image.sha256, image.caption]).encode())
    return digest.hexdigest()


def _on_paper(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("RGBA")
    paper = Image.new("RGBA", layer.size, (*PAPER, 255))
    return Image.alpha_composite(paper, layer).convert("RGB")


def _read_metadata(metadata: Path) -> dict[Path, str]:
    captions: dict[Path, str] = {}
    lines = _read_text(metadata).splitlines()
    for number, line in enumerate(lines, start=1):
        if line.strip():
            name, caption = _read_line(line, f"Line {number} of {METADATA}")
            path = metadata.parent / name
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                raise DatasetError(f"Line {number} of {METADATA} names {name}: no such picture.")
            captions[path] = caption
    return captions


def _read_line(line: str, where: str) -> tuple[str, str]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise DatasetError(f"{where} is not JSON.") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        raise DatasetError(f'{where} needs a "file_name".')
    name, caption = entry["file_name"], entry.get("text", "")
    if not isinstance(caption, str):
        raise DatasetError(f'{where}: the "text" of {name} is not a text.')
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DatasetError(f"{where} names a file outside of the folder.")
    return name, _checked(caption, where)


def _read_sidecars(folder: Path) -> dict[Path, str]:
    captions = {}
    for path in folder.iterdir():
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            sidecar = path.with_suffix(".txt")
            text = _read_text(sidecar) if sidecar.is_file() else ""
            captions[path] = _checked(text, sidecar.name)
    return captions


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
