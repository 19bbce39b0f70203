"""Generation parameters in text and images, in the format that other programs read and write.

The text is that of AUTOMATIC1111's `create_infotext` (`modules/processing.py`): a prompt of any
number of lines, a line that begins with “Negative prompt:”, and a last line of settings. PNGs have
it in the chunk `parameters`, JPEGs and WebPs in the Exif field UserComment (0x9286). In ours, the
chunk `brushwork` holds the whole request as JSON.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from worker.core.inference.config import ImageSettings
from worker.core.words import KARRAS

HASH_DIGITS = 12
MODEL_HASH_DIGITS = 10
NEEDS_QUOTES = frozenset(',:"\n')
MAX_INFOTEXT = 50_000  # characters
MAX_FILE_BYTES = 64 * 2**20
NEGATIVE = "Negative prompt:"
BLOCK_WEIGHTS = "Lora block weights"
FORMATS = ("PNG", "JPEG", "WEBP")
EXIF_FOLDER, USER_COMMENT = 0x8769, 0x9286
FACTORS = re.compile(" ".join([r"(-?\d{1,4}(?:\.\d{1,12})?(?:e-\d\d)?)"] * 3), re.ASCII)
KEY = re.compile(r"[A-Za-z][\w /-]{0,40}", re.ASCII)


@dataclass(frozen=True)
class UsedAdapter:
    """An adapter used for an image; other programs identify its file by `tensor_hash`.

    `block_factors`: those of the input, middle and output blocks of the UNet; None: 1 in all.
    """

    name: str
    weight: float
    text_encoder_weight: float
    tensor_hash: str | None
    block_factors: tuple[float, float, float] | None = None

    @property
    def tag(self) -> str:
        """`<lora:name:weight>`, with both weights when they differ."""
        if self.weight == self.text_encoder_weight:
            return f"<lora:{self.name}:{self.weight:g}>"
        return f"<lora:{self.name}:{self.text_encoder_weight:g}:{self.weight:g}>"


@dataclass(frozen=True)
class ImageParameters:
    """The generation parameters of one image, whose sides are set."""

    settings: ImageSettings
    model: str
    model_hash: str | None = None
    precision: str | None = None
    source_sha256: str | None = None
    adapters: Sequence[UsedAdapter] = ()


def make_infotext(image_parameters: ImageParameters) -> str:
    """The infotext of an image."""
    settings, sampler = image_parameters.settings, image_parameters.settings.sampler
    lines = [" ".join([settings.prompt, *(adapter.tag for adapter in image_parameters.adapters)])]
    if settings.negative_prompt:
        lines.append(f"{NEGATIVE} {settings.negative_prompt}")
    pairs: dict[str, Any] = {
        "Steps": settings.steps,
        "Sampler": sampler.label.removesuffix(f" {KARRAS}"),
        **({"Schedule type": KARRAS} if sampler.is_karras else {}),
        "CFG scale": settings.guidance,
        "Seed": settings.seed,
        "Size": f"{settings.width}x{settings.height}",
    }
    if image_parameters.model_hash:
        pairs["Model hash"] = image_parameters.model_hash[:MODEL_HASH_DIGITS]
    pairs["Model"] = image_parameters.model
    if settings.strength is not None:
        pairs["Denoising strength"] = f"{settings.strength:g}"
    if image_parameters.source_sha256:
        pairs["Source SHA256"] = image_parameters.source_sha256
    if settings.clip_skip > 1:
        pairs["Clip skip"] = settings.clip_skip
    if image_parameters.precision:
        pairs["Precision"] = image_parameters.precision
    hashes = [
        f"{adapter.name}: {adapter.tensor_hash[:HASH_DIGITS]}"
        for adapter in image_parameters.adapters
        if adapter.tensor_hash
    ]
    if hashes:
        pairs["Lora hashes"] = ", ".join(hashes)
    blocks = [
        f"{adapter.name}: {' '.join(f'{factor:g}' for factor in adapter.block_factors)}"
        for adapter in image_parameters.adapters
        if adapter.block_factors
    ]
    if blocks:
        pairs[BLOCK_WEIGHTS] = ", ".join(blocks)
    pairs["Version"] = "Brushwork"
    lines.append(", ".join(f"{key}: {_quote_value(value)}" for key, value in pairs.items()))
    return "\n".join(lines)


def encode_png(
    image: Image.Image, image_parameters: ImageParameters, request: Mapping[str, Any]
) -> bytes:
    """The image as a PNG with its infotext and the request as JSON for Brushwork."""
    info = PngInfo()
    info.add_text("parameters", make_infotext(image_parameters))
    info.add_text("brushwork", json.dumps(dict(request), ensure_ascii=False, sort_keys=True))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def _quote_value(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if NEEDS_QUOTES & set(text) else text


class InfotextError(ValueError):
    """There is nothing to read; the message has the reason, for users."""


@dataclass(frozen=True)
class Infotext:
    """The settings in a text; None for what it leaves out or what cannot be used."""

    prompt: str = ""
    negative_prompt: str = ""
    steps: int | None = None
    sampler: str | None = None
    guidance: float | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    clip_skip: int | None = None
    strength: float | None = None
    source_sha256: str | None = None
    block_factors: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    """The factors of the input, middle and output blocks, by the name of the adapter's file."""


def read_image_infotext(file: BinaryIO) -> str:
    """The infotext in an image file, whose pixels are not decoded. Raises InfotextError."""
    if file.seek(0, 2) > MAX_FILE_BYTES:
        raise InfotextError(f"The file is larger than {MAX_FILE_BYTES // 2**20} MiB.")
    file.seek(0)
    try:
        with Image.open(file, formats=FORMATS) as image:
            found = image.info.get("parameters") or _user_comment(image)
    except UnidentifiedImageError:
        raise InfotextError("This is no PNG, JPEG or WebP image.") from None
    except Exception as error:  # Pillow raises many kinds for damaged files and for bombs of text
        raise InfotextError("The settings in this image cannot be read.") from error
    if not isinstance(found, str) or not found.strip():
        raise InfotextError(
            "This image has no settings inside. Some programs and web pages remove them; use the "
            "original file."
        )
    return found


def _user_comment(image: Image.Image) -> str:
    comment = image.getexif().get_ifd(EXIF_FOLDER).get(USER_COMMENT, b"")
    if isinstance(comment, str):
        return comment
    kind, text = comment[:8], comment[8:]
    if not kind.startswith(b"UNICODE"):
        return str(text.decode("utf-8", "ignore")).strip("\0")
    little = len(text) > 1 and text[1] == 0  # Latin letters, low byte first
    return str(text.decode("utf-16-le" if little else "utf-16-be", "ignore")).strip("\0")


def parse_infotext(text: str) -> Infotext:
    """The settings in an infotext. Raises InfotextError when there are no settings in it."""
    if len(text) > MAX_INFOTEXT:
        raise InfotextError(f"The text is longer than {MAX_INFOTEXT:,} characters.")
    *lines, last = text.strip().splitlines() or [""]
    settings = dict(_pairs(last))
    if "Steps" not in settings:
        raise InfotextError(
            "There are no settings in this text. Its last line has to look like “Steps: 20, "
            "Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512”."
        )
    prompt, found, negative = "\n".join(lines).partition(f"\n{NEGATIVE}")
    if not found and prompt.startswith(NEGATIVE):
        prompt, negative = "", prompt.removeprefix(NEGATIVE)
    width, _, height = settings.get("Size", "").partition("x")
    sampler = settings.get("Sampler")
    if sampler and settings.get("Schedule type") == KARRAS and KARRAS not in sampler:
        sampler = f"{sampler} {KARRAS}"
    # enlarging in a second pass has a strength of its own
    is_hires = any(name.startswith("Hires") for name in settings)
    source = re.fullmatch(r"[0-9a-f]{64}", settings.get("Source SHA256", ""))
    return Infotext(
        prompt=prompt.strip(),
        negative_prompt=negative.strip(),
        steps=_whole(settings.get("Steps")),
        sampler=sampler,
        guidance=_number(settings.get("CFG scale")),
        seed=_whole(settings.get("Seed")),
        width=_whole(width),
        height=_whole(height),
        clip_skip=_whole(settings.get("Clip skip")),
        strength=None if is_hires else _number(settings.get("Denoising strength")),
        source_sha256=source[0] if source else None,
        block_factors=dict(_block_factors(settings.get(BLOCK_WEIGHTS, ""))),
    )


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """The settings `key: value, key: value`; a value can be in quotes or brackets."""
    for part in _split(line):
        key, colon, value = part.partition(":")
        if colon and KEY.fullmatch(key.strip()):
            yield key.strip(), value.strip().strip('"')


def _split(line: str) -> Iterator[str]:
    """The parts between commas that are in no quotes and brackets."""
    start = depth = 0
    quoted = escaped = False
    for place, sign in enumerate(line):
        if escaped:
            escaped = False
        elif sign == "\\":
            escaped = True
        elif sign == '"':
            quoted = not quoted
        elif not quoted and sign in "[{":
            depth += 1
        elif not quoted and sign in "]}":
            depth = max(0, depth - 1)
        elif sign == "," and not quoted and not depth:
            yield line[start:place]
            start = place + 1
    yield line[start:]


def _block_factors(text: str) -> Iterator[tuple[str, tuple[float, float, float]]]:
    for named in text.split(","):
        name, _, numbers = named.strip().rpartition(": ")
        if found := FACTORS.fullmatch(numbers):
            yield name, (float(found[1]), float(found[2]), float(found[3]))


def _whole(text: str | None) -> int | None:
    found = re.fullmatch(r"\s*(\d{1,12})\s*", text or "", re.ASCII)
    return int(found[1]) if found else None


def _number(text: str | None) -> float | None:
    found = re.fullmatch(r"\s*(\d{1,6}(\.\d{1,12})?)\s*", text or "", re.ASCII)
    return float(found[1]) if found else None
