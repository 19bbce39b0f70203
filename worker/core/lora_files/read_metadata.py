"""Reading the metadata of a LoRA file and its sidecars: name, trigger words, preview image.

All of it is untrusted text. Every value is truncated, cleaned of control characters and HTML, and
never used as a path. An image is returned as bytes, which the caller must decode safely.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.core.lora_files.metadata import WEIGHT_KEY
from worker.core.lora_files.weights import MAX_WEIGHT, USUAL_WEIGHT
from worker.core.wording import shortened

MAX_JSON_BYTES = 2**20
MAX_IMAGE_BYTES = 16 * 2**20
MAX_NAME, MAX_WORD, MAX_WORDS = 120, 60, 20
MAX_TAG, MAX_TAGS = 40, 20
MAX_DESCRIPTION = 10_000
MAX_LICENSE = 80
MAX_AUTHOR = 120

JSON_ENDINGS = (".civitai.info", ".json")
IMAGE_ENDINGS = (".preview.png", ".png", ".jpg", ".jpeg", ".webp")

_MARKUP = re.compile(r"<[^<>]{0,2000}>")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
_PROGRAM_NAMES = (
    "last",
    "lora",
    "output",
    "pytorch_lora_weights",
)  # names that programs give, not people


@dataclass(frozen=True)
class SourceMetadata:
    """The metadata found; empty fields are unknown. `image` has not been decoded yet.

    `long_name`: the whole name, if `name` is shortened.
    """

    name: str = ""
    long_name: str = ""
    trigger_words: tuple[str, ...] = ()
    license: str = ""
    author: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    usual_weight: float = USUAL_WEIGHT
    image: bytes | None = None


@dataclass(frozen=True)
class Sidecar:
    """A file that was uploaded together with the weights."""

    name: str
    path: Path


def read_source_metadata(
    metadata: Mapping[str, str], sidecars: Sequence[Sidecar], filename: str
) -> SourceMetadata:
    """The metadata from the header, the sidecars and, as a fallback for the name, the file name."""
    listed = _sidecars_by_ending(sidecars, JSON_ENDINGS)
    files = [read for sidecar in listed if (read := _read_json_file(sidecar.path)) is not None]
    civitai = next((file for file in files if "trainedWords" in file or "modelId" in file), {})
    notes = next((file for file in files if "activation text" in file or "sd version" in file), {})
    model = _as_dict(civitai.get("model"))
    output_name = metadata.get("ss_output_name", "")
    name = (
        _clean_line(model.get("name"))
        or _clean_line(metadata.get("modelspec.title"))
        or ("" if output_name.lower() in _PROGRAM_NAMES else _clean_line(output_name))
        or _clean_line(_name_from_filename(filename))
        or "Imported"
    )
    return SourceMetadata(
        name=shortened(name, MAX_NAME),
        long_name=name if len(name) > MAX_NAME else "",
        trigger_words=_first_words(
            _split_list(civitai.get("trainedWords")),
            _split_commas(notes.get("activation text")),
            _split_commas(metadata.get("modelspec.trigger_phrase")),
            _class_tokens(metadata.get("ss_datasets", "")),
        ),
        license=_clean_line(notes.get("license"), MAX_LICENSE)
        or _clean_line(metadata.get("modelspec.license"), MAX_LICENSE),
        author=_clean_line(metadata.get("modelspec.author"), MAX_AUTHOR),
        description=_clean_text(civitai.get("description"))
        or _clean_text(notes.get("description"))
        or _clean_text(notes.get("notes"))
        or _clean_text(metadata.get("modelspec.description")),
        tags=_clean_tags(
            [*_split_commas(metadata.get("modelspec.tags")), *_split_list(model.get("tags"))]
        ),
        usual_weight=_weight(notes.get("preferred weight"))
        or _weight(metadata.get(WEIGHT_KEY))
        or USUAL_WEIGHT,
        image=_find_image(metadata, _sidecars_by_ending(sidecars, IMAGE_ENDINGS)),
    )


def _sidecars_by_ending(sidecars: Sequence[Sidecar], endings: tuple[str, ...]) -> list[Sidecar]:
    """The sidecars with these endings, in the order of the endings."""
    found = [
        (endings.index(ending), sidecar)
        for sidecar in sidecars
        if (ending := next((e for e in endings if sidecar.name.lower().endswith(e)), None))
    ]
    return [sidecar for _, sidecar in sorted(found, key=lambda pair: pair[0])]


def _read_json_file(path: Path) -> dict[str, Any] | None:
    if path.stat().st_size > MAX_JSON_BYTES:
        return None
    value = _parse_json(path.read_bytes())
    return value if isinstance(value, dict) else None


def _parse_json(content: str | bytes, limit: int = MAX_JSON_BYTES) -> Any:
    """The JSON value; None if it is too long, too deep or not JSON."""
    if len(content) > limit:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _as_dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _clean_line(value: object, limit: int = MAX_DESCRIPTION) -> str:
    """One line of plain text, at most `limit` characters; empty if the value is not text."""
    return " ".join(_clean_text(value).split())[:limit].strip()


def _clean_text(value: object) -> str:
    """Plain text without HTML, control characters and empty lines."""
    if not isinstance(value, str):
        return ""
    text = value[: 4 * MAX_DESCRIPTION]
    text = html.unescape(_MARKUP.sub(" ", text)) if "<" in text else text
    lines = (" ".join(line.split()) for line in _CONTROL.sub("", text).splitlines())
    return "\n".join(line for line in lines if line)[:MAX_DESCRIPTION]


def _weight(value: object) -> float | None:
    """The weight; None if there is none that is accepted. Web UIs write 0 for a weight not set."""
    try:
        weight = float(str(value)[:20])
    except ValueError:
        return None
    return weight if math.isfinite(weight) and 0 < abs(weight) <= MAX_WEIGHT else None


def _split_commas(value: object) -> list[str]:
    return value[:MAX_DESCRIPTION].split(",") if isinstance(value, str) else []


def _split_list(value: object) -> list[str]:
    listed = value[: 10 * MAX_WORDS] if isinstance(value, list) else []
    return [part for text in listed if isinstance(text, str) for part in _split_commas(text)]


def _first_words(*sources: Iterable[str]) -> tuple[str, ...]:
    for source in sources:
        words = dict.fromkeys(word for text in source if (word := _clean_line(text, MAX_WORD)))
        if words:
            return tuple(words)[:MAX_WORDS]
    return ()


def _clean_tags(texts: Sequence[str]) -> tuple[str, ...]:
    tags = (_clean_line(text, MAX_TAG).lower() for text in texts)
    return tuple(dict.fromkeys(tag for tag in tags if tag))[:MAX_TAGS]


def _class_tokens(datasets: str) -> list[str]:
    """The class tokens of kohya's first subset, which ComfyUI-Lora-Manager shows as triggers."""
    value: Any = _parse_json(datasets) if datasets else None
    try:
        tokens = value[0]["subsets"][0]["class_tokens"]
    except (TypeError, KeyError, IndexError):
        return []
    return _split_commas(tokens)


def _name_from_filename(filename: str) -> str:
    name = filename.replace("\\", "/").rpartition("/")[2]
    return name.removesuffix(".safetensors").replace("_", " ")


def _find_image(metadata: Mapping[str, str], files: Sequence[Sidecar]) -> bytes | None:
    """The sidecar image, else A1111's first cover, else modelspec's thumbnail."""
    for sidecar in files:
        if sidecar.path.stat().st_size <= MAX_IMAGE_BYTES:
            return sidecar.path.read_bytes()
    covers = metadata.get("ssmd_cover_images", "")
    listed = _cover_texts(covers) if covers else []
    return next(
        (
            image
            for text in [*listed, metadata.get("modelspec.thumbnail", "")]
            if (image := _decode_base64(text))
        ),
        None,
    )


def _cover_texts(text: str) -> list[str]:
    value = _parse_json(text, MAX_IMAGE_BYTES)
    return [t for t in value[:1] if isinstance(t, str)] if isinstance(value, list) else []


def _decode_base64(text: str) -> bytes | None:
    """The bytes of a base64 text, with or without the prefix of a data URL."""
    if not text or len(text) > MAX_IMAGE_BYTES:
        return None
    content = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(content, validate=True) or None
    except (binascii.Error, ValueError):
        return None
