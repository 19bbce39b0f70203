"""Messages between a process with a model and its parent, one JSON object per line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Open:
    """To the process, first: open the model in this folder.

    `device` as in the settings; `on_cpu`: not there, but on the CPU.
    """

    folder: str
    title: str
    device: str
    on_cpu: bool = False


@dataclass(frozen=True)
class Caption:
    """To the process: caption the image in this file."""

    path: str
    prompt: str


@dataclass(frozen=True)
class Opened:
    """From the process: the model is ready on `device`; `wanted` is the one of the settings."""

    device: str
    wanted: str


@dataclass(frozen=True)
class Captioned:
    """From the process: a CaptionAnswer."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Failed:
    """From the process: a CaptionError; `is_gone`: no further image can be captioned."""

    sentence: str
    is_gone: bool


Message = Open | Caption | Opened | Captioned | Failed
KINDS = {kind.__name__: kind for kind in (Open, Caption, Opened, Captioned, Failed)}


def encode(message: Message) -> str:
    """The line of a message."""
    return json.dumps({type(message).__name__: asdict(message)}) + "\n"


def decode(line: str) -> Message | None:
    """The message of a line; None for what a library printed."""
    try:
        ((name, values),) = json.loads(line).items()
        message: Message = KINDS[name](**values)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return message
