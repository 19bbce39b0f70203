"""What the train worker and its trainer process tell each other: one JSON object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from worker.core.training.config import TrainConfig
from worker.core.training.events import Arithmetic, Control, Event


@dataclass(frozen=True)
class Preload:
    """To the trainer: import everything and hold this base model in memory."""

    model: Path


@dataclass(frozen=True)
class Calibrate:
    """To the trainer: measure a step with this config on the base it holds."""

    config: TrainConfig
    resolution: int


@dataclass(frozen=True)
class Train:
    """To the trainer: the one training of its life."""

    model: Path
    data: Path
    out: Path
    cache: Path
    config: TrainConfig
    continues: bool = False
    arithmetic: Arithmetic | None = None


@dataclass(frozen=True)
class Wish:
    """To the trainer: change course, or do something once at the next step."""

    control: Control = Control.CONTINUE
    sample_now: bool = False
    save_now: bool = False


@dataclass(frozen=True)
class ExportFile:
    """A download to write beside the canonical file; `proof` once it was written and proved.

    `problem` says why there is no such file.
    """

    format: str
    dtype: str
    path: Path
    proof: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a download says of its adapter; `created` in ISO 8601."""

    title: str
    slug: str
    family: str
    base_name: str
    resolution: int
    created: str
    prediction_type: str
    trigger_words: list[str]
    training_seconds: float | None = None
    description: str = ""
    tags: list[str] = field(default_factory=list)
    images: int | None = None
    cover: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    licence: str = ""
    author: str = ""
    tag_counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Export:
    """To the trainer: write these downloads of what it trained, with these facts in them.

    `base` is where the base model lies that they are proved on.
    """

    files: list[ExportFile]
    facts: Facts
    base: Path | None = None


@dataclass(frozen=True)
class Ready:
    """From the trainer: everything is imported and the base, if it could be read, in memory."""

    device: str


@dataclass(frozen=True)
class Alive:
    """From the trainer: it looked for wishes, so it is not stuck."""


@dataclass(frozen=True)
class Calibrated:
    """From the trainer: what a step of this config costs on this machine."""

    model: Path
    config: TrainConfig
    resolution: int
    seconds_per_step: float
    trainable_parameters: int
    adapter_bytes: int


@dataclass(frozen=True)
class Trained:
    """From the trainer: the training ended; `path` is the canonical file, if one was kept."""

    path: Path | None
    outcome: str
    steps: int
    trainable_parameters: int
    base_parameters: int
    peak_memory_bytes: int
    seconds: float


@dataclass(frozen=True)
class Exported:
    """From the trainer: the downloads are on disk and proved, but for those with a problem."""

    files: list[ExportFile] = field(default_factory=list)


@dataclass(frozen=True)
class Failed:
    """From the trainer: it cannot go on; `expected` when the sentence is meant for people."""

    code: str
    error: str
    trace: str
    expected: bool


Message = (
    Preload
    | Calibrate
    | Train
    | Wish
    | Export
    | Ready
    | Alive
    | Calibrated
    | Trained
    | Exported
    | Failed
    | Event
)
_KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in Message.__args__}


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(_KINDS[kind])


def encode(message: Message) -> bytes:
    """One line; numbers that are not finite stay what they are."""
    kind = type(message).__name__
    return json.dumps([kind, _adapter(kind).dump_python(message, mode="json")]).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The message of a line that `encode` wrote."""
    kind, fields = json.loads(line)
    message: Message = _adapter(kind).validate_python(fields)
    return message
