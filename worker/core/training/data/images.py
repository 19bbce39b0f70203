"""Reads images and captions from files: finds, hashes and opens them safely."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from PIL import ExifTags, Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from worker.core.old_names import accept_old_names
from worker.core.training.data.epochs import MAX_REPEATS
from worker.core.training.errors import DatasetError

CAPTION_SHOWN = 40  # characters
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
METADATA = "metadata.jsonl"
MAX_PIXELS = 120_000_000
MAX_CAPTION_LENGTH = 10_000
MAX_CAPTIONS = 20  # of one image
MAX_SHARE = 1_000
TAGS = "tags"  # the kind of a caption whose parts may be shuffled
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
BACKGROUND = (255, 255, 255)
OPAQUE = 255


@dataclass(frozen=True, slots=True)
class WeightedCaption:
    """One of several captions of an image; it is used in proportion to its share."""

    text: str
    share: int = 1
    kind: str = ""


@dataclass(frozen=True, slots=True)
class TrainingImage:
    """An image file with the hash of its content and its caption.

    `repeats` multiplies how often it is used. A regularization image shows what the style is not,
    so that the base does not forget it (Ruiz et al. 2022, arXiv 2208.12242). `captions` are all
    captions of an image that has several, the first one included. `focus` is the point (x, y) that
    a crop keeps in its middle where it can, each from 0 to 1; None: the center. `dataset` is the
    number of its dataset, from 0, in a training on several.
    """

    path: Path
    sha256: str
    caption: str
    repeats: int = 1
    never_flip: bool = False
    is_regularization: bool = False
    captions: tuple[WeightedCaption, ...] = ()
    focus: tuple[float, float] | None = None
    dataset: int = 0

    @property
    def texts(self) -> tuple[str, ...]:
        """All its captions, the first one first."""
        return tuple(caption.text for caption in self.captions) or (self.caption,)

    @property
    def label(self) -> str:
        """Its file name and, if any, the start of its caption."""
        name, caption = self.path.name, self.caption[:CAPTION_SHOWN]
        return f"{name} “{caption}”" if caption else name


class CaptionLine(BaseModel):
    """One of several captions in a line of `metadata.jsonl`."""

    model_config = ConfigDict(extra="ignore", strict=True)

    caption: str
    share: int = Field(1, ge=1, le=MAX_SHARE)
    kind: str = Field("", max_length=40)


Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class MetadataLine(BaseModel):
    """A line of `metadata.jsonl`; unknown fields of other programs are ignored.

    `captions` replaces `text` where an image has several. An image that is set aside is left out.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    file_name: str
    text: str = ""
    captions: list[CaptionLine] = Field(default_factory=list, max_length=MAX_CAPTIONS)
    focus: Annotated[list[Fraction], Field(min_length=2, max_length=2)] | None = None
    repeats: int = Field(1, ge=1, le=MAX_REPEATS)
    never_flip: bool = False
    set_aside: bool = False
    regularization: bool = False
    dataset: int = Field(0, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, values: Any) -> Any:
        return accept_old_names(values)


def read_folder(folder: Path) -> list[TrainingImage]:
    """The images of a folder with their captions, sorted by name.

    With a `metadata.jsonl` (a `MetadataLine` each), captions and the selection of images come from
    it; else captions come from a `.txt` file next to each image. A missing caption is empty. Raises
    DatasetError.
    """
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}. Check the path.")
    metadata = folder / METADATA
    lines = _read_metadata(metadata) if metadata.is_file() else _read_sidecars(folder)
    if not lines:
        raise DatasetError(f"There are no images in {folder}. Add PNG, JPEG or WebP files.")
    return [
        _training_image(path, line)
        for path, line in sorted(lines.items(), key=lambda pair: pair[0])
    ]


def _training_image(path: Path, line: MetadataLine) -> TrainingImage:
    captions = tuple(WeightedCaption(one.caption, one.share, one.kind) for one in line.captions)
    return TrainingImage(
        path,
        _file_sha256(path),
        captions[0].text if captions else line.text,
        repeats=line.repeats,
        never_flip=line.never_flip,
        is_regularization=line.regularization,
        captions=captions if len(captions) > 1 else (),
        focus=(line.focus[0], line.focus[1]) if line.focus else None,
        dataset=line.dataset,
    )


def open_image(image: TrainingImage) -> Image.Image:
    """The image upright in RGB, transparency on white. Raises DatasetError."""
    return open_with_opacity(image)[0]


def open_with_opacity(image: TrainingImage) -> tuple[Image.Image, Image.Image | None]:
    """The image as from `open_image`, and its opacity (L), None when it is fully opaque."""
    with _open_file(image) as opened:
        turn = TURNS.get(_read_orientation(opened))
        opened.load()
        upright = opened.transpose(turn) if turn is not None else opened
        opacity = None
        if upright.has_transparency_data:
            alpha = upright.convert("RGBA").getchannel("A")
            opaque = alpha.histogram()[OPAQUE]
            opacity = alpha if opaque < alpha.width * alpha.height else None
        return _composite_on_white(upright), opacity


def image_size(image: TrainingImage) -> tuple[int, int]:
    """The upright width and height, read from the file's header only. Raises DatasetError."""
    with _open_file(image) as opened:
        turned = _read_orientation(opened) in SIDEWAYS
        return (opened.height, opened.width) if turned else opened.size


def _read_orientation(opened: Image.Image) -> int:
    """The EXIF orientation in the header.

    `getexif()` also looks behind a PNG's pixels, and so decodes the whole image to find nothing:
    three quarters of the start of a run on 2,000 encoded images.
    """
    exif = Image.Exif()
    with suppress(Exception):  # EXIF comes from any program; broken data is ignored
        exif.load(opened.info.get("exif") or b"")
    return int(exif.get(ExifTags.Base.Orientation, 1))


@contextmanager
def _open_file(image: TrainingImage) -> Iterator[Image.Image]:
    name = image.path.name
    try:
        with Image.open(image.path, formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise DatasetError(f"{name} has more than {MAX_PIXELS:,} pixels. Make it smaller.")
            yield opened
    except FileNotFoundError as error:
        raise DatasetError(
            f"{name} was removed. Put it back, or start again without it."
        ) from error
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DatasetError(
            f"{name} is not a PNG, JPEG or WebP image. Convert or remove it."
        ) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(
            f"{name} is damaged and cannot be read. Replace or remove it."
        ) from error


def check_images(images: Sequence[TrainingImage]) -> None:
    """Raise DatasetError when there is nothing to train on."""
    if not any(not image.is_regularization for image in images):
        raise DatasetError("The dataset is empty: add at least one image.")


def dataset_fingerprint(images: Sequence[TrainingImage]) -> str:
    """A hash of contents, captions and order: equal only for identical training data."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(json.dumps([image.sha256, image.caption, *_image_options(image)]).encode())
    return digest.hexdigest()


def _image_options(image: TrainingImage) -> list[Any]:
    """Other options that change a training's numbers; nothing for an image with the defaults."""
    options: list[Any] = [image.repeats, image.never_flip, image.is_regularization]
    if image.captions:
        options.append([[one.text, one.share, one.kind == TAGS] for one in image.captions])
    if image.focus is not None:
        options.append({"focus": image.focus})
    return options


def _composite_on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    paper = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
    return Image.alpha_composite(paper, layer).convert("RGB")


def _read_metadata(metadata: Path) -> dict[Path, MetadataLine]:
    lines: dict[Path, MetadataLine] = {}
    for number, text in enumerate(_read_text(metadata).splitlines(), start=1):
        if text.strip():
            line = _read_line(text, f"Line {number} of {METADATA}")
            if line.set_aside:
                continue
            path = metadata.parent / line.file_name
            if path.suffix.lower() not in SUFFIXES or not path.is_file():
                raise DatasetError(
                    f"Line {number} of {METADATA} names {line.file_name}: no such image."
                )
            lines[path] = line
    return lines


def _read_line(text: str, where: str) -> MetadataLine:
    try:
        line = MetadataLine.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        if problem["type"] == "value_error":
            raise DatasetError(f"{where}: {problem['ctx']['error']}") from error
        if not problem["loc"]:
            raise DatasetError(f"{where} is not a JSON object.") from error
        raise DatasetError(f"{where}: {problem['loc'][0]}: {problem['msg']}.") from error
    if Path(line.file_name).is_absolute() or ".." in Path(line.file_name).parts:
        raise DatasetError(f"{where} names a file outside the folder.")
    captions = [
        one.model_copy(update={"caption": _check_caption(one.caption, where)})
        for one in line.captions
    ]
    text = _check_caption(line.text, where)
    return line.model_copy(update={"text": text, "captions": captions})


def _read_sidecars(folder: Path) -> dict[Path, MetadataLine]:
    lines = {}
    for path in folder.iterdir():
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            sidecar = path.with_suffix(".txt")
            text = _read_text(sidecar) if sidecar.is_file() else ""
            lines[path] = MetadataLine(file_name=path.name, text=_check_caption(text, sidecar.name))
    return lines


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path.name} is not UTF-8 text. Save it as UTF-8.") from error


def _check_caption(caption: str, where: str) -> str:
    if len(caption) > MAX_CAPTION_LENGTH:
        raise DatasetError(f"{where}: the caption has more than {MAX_CAPTION_LENGTH:,} characters.")
    return caption.strip()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
