"""What a LoRA file and the files beside it say of themselves: name, trigger words, picture.

All of it is text from strangers. Every value is cut, cleaned of control characters and HTML, and
never used as a path; a picture comes back as bytes for somebody who decodes it safely.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 2**20
MAX_PICTURE_BYTES = 16 * 2**20
MAX_NAME, MAX_WORD, MAX_WORDS = 120, 60, 20
MAX_TAG, MAX_TAGS = 40, 20
MAX_DESCRIPTION = 10_000
MAX_LICENCE = 80
MAX_AUTHOR = 120

JSON_ENDINGS = (".civitai.info", ".json")
PICTURE_ENDINGS = (".preview.png", ".png", ".jpg", ".jpeg", ".webp")

_MARKUP = re.compile(r"<[^<>]{0,2000}>")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
_HASHED_NAMES = ("last", "lora", "output", "pytorch_lora_weights")  # names of programs, not people


@dataclass(frozen=True)
class About:
    """What was told; empty where nothing was. `picture` is of unknown worth."""

    name: str = ""
    trigger_words: tuple[str, ...] = ()
    licence: str = ""
    author: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    picture: bytes | None = None


@dataclass(frozen=True)
class Sidecar:
    """A file that lay beside the weights."""

    name: str
    path: Path


def about(metadata: Mapping[str, str], sidecars: Sequence[Sidecar], filename: str) -> About:
    """What the header's metadata, the sidecars and at last the file's name say."""
    beside = _beside(sidecars, JSON_ENDINGS)
    files = [read for sidecar in beside if (read := _json_file(sidecar.path)) is not None]
    shop = next((file for file in files if "trainedWords" in file or "modelId" in file), {})
    notes = next((file for file in files if "activation text" in file or "sd version" in file), {})
    model = _dict(shop.get("model"))
    told = metadata.get("ss_output_name", "")
    return About(
        name=_line(model.get("name"), MAX_NAME)
        or _line(metadata.get("modelspec.title"), MAX_NAME)
        or ("" if told.lower() in _HASHED_NAMES else _line(told, MAX_NAME))
        or _line(_stem(filename), MAX_NAME)
        or "Imported",
        trigger_words=_first_words(
            _texts(shop.get("trainedWords")),
            _split(notes.get("activation text")),
            _split(metadata.get("modelspec.trigger_phrase")),
            _class_tokens(metadata.get("ss_datasets", "")),
        ),
        licence=_line(notes.get("license"), MAX_LICENCE)
        or _line(metadata.get("modelspec.license"), MAX_LICENCE),
        author=_line(metadata.get("modelspec.author"), MAX_AUTHOR),
        description=_text(shop.get("description"))
        or _text(notes.get("description"))
        or _text(notes.get("notes"))
        or _text(metadata.get("modelspec.description")),
        tags=_tags([*_split(metadata.get("modelspec.tags")), *_texts(model.get("tags"))]),
        picture=_picture(metadata, _beside(sidecars, PICTURE_ENDINGS)),
    )


def _beside(sidecars: Sequence[Sidecar], endings: tuple[str, ...]) -> list[Sidecar]:
    """The sidecars with these endings, those of the first ending first."""
    found = [
        (endings.index(ending), sidecar)
        for sidecar in sidecars
        if (ending := next((e for e in endings if sidecar.name.lower().endswith(e)), None))
    ]
    return [sidecar for _, sidecar in sorted(found, key=lambda pair: pair[0])]


def _json_file(path: Path) -> dict[str, Any] | None:
    if path.stat().st_size > MAX_JSON_BYTES:
        return None
    value = _parsed(path.read_bytes())
    return value if isinstance(value, dict) else None


def _parsed(content: str | bytes) -> Any:
    """The JSON value; None when it is too long, too deep or none."""
    if len(content) > MAX_JSON_BYTES:
        return None
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _line(value: object, limit: int) -> str:
    """One line of plain text, at most `limit` characters; empty for anything but text."""
    return " ".join(_text(value).split())[:limit].strip()


def _text(value: object) -> str:
    """Plain text in lines: without HTML and control characters."""
    if not isinstance(value, str):
        return ""
    text = value[: 4 * MAX_DESCRIPTION]
    text = html.unescape(_MARKUP.sub(" ", text)) if "<" in text else text
    lines = (" ".join(line.split()) for line in _CONTROL.sub("", text).splitlines())
    return "\n".join(line for line in lines if line)[:MAX_DESCRIPTION]


def _split(value: object) -> list[str]:
    return value[:MAX_DESCRIPTION].split(",") if isinstance(value, str) else []


def _texts(value: object) -> list[str]:
    listed = value[: 10 * MAX_WORDS] if isinstance(value, list) else []
    return [part for text in listed if isinstance(text, str) for part in _split(text)]


def _first_words(*sources: Iterable[str]) -> tuple[str, ...]:
    for source in sources:
        words = dict.fromkeys(word for text in source if (word := _line(text, MAX_WORD)))
        if words:
            return tuple(words)[:MAX_WORDS]
    return ()


def _tags(texts: Sequence[str]) -> tuple[str, ...]:
    tags = (_line(text, MAX_TAG).lower() for text in texts)
    return tuple(dict.fromkeys(tag for tag in tags if tag))[:MAX_TAGS]


def _class_tokens(datasets: str) -> list[str]:
    """kohya's first subset's class tokens: what ComfyUI-Lora-Manager shows as the trigger."""
    value: Any = _parsed(datasets) if datasets else None
    try:
        tokens = value[0]["subsets"][0]["class_tokens"]
    except (TypeError, KeyError, IndexError):
        return []
    return _split(tokens)


def _stem(filename: str) -> str:
    name = filename.replace("\\", "/").rpartition("/")[2]
    return name.removesuffix(".safetensors").replace("_", " ")


def _picture(metadata: Mapping[str, str], files: Sequence[Sidecar]) -> bytes | None:
    """The sidecar picture, else A1111's first cover, else modelspec's thumbnail."""
    for sidecar in files:
        if sidecar.path.stat().st_size <= MAX_PICTURE_BYTES:
            return sidecar.path.read_bytes()
    covers = metadata.get("ssmd_cover_images", "")
    listed = _covers(covers) if covers else []
    return next(
        (
            picture
            for text in [*listed, metadata.get("modelspec.thumbnail", "")]
            if (picture := _decoded(text))
        ),
        None,
    )


def _covers(text: str) -> list[str]:
    if len(text) > MAX_PICTURE_BYTES:
        return []
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [t for t in value[:1] if isinstance(t, str)] if isinstance(value, list) else []


def _decoded(text: str) -> bytes | None:
    """The bytes of base64, with or without the beginning of a data URL."""
    if not text or len(text) > MAX_PICTURE_BYTES:
        return None
    content = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(content, validate=True) or None
    except (binascii.Error, ValueError):
        return None
