"""Messages between a process with a model and its parent."""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.captioning.interface import CaptionAnswer
from worker.core.child_pipes import MessageLines


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
class Failed:
    """From the process: a CaptionError; `is_gone`: no further image can be captioned."""

    sentence: str
    is_gone: bool


Message = Open | Caption | Opened | CaptionAnswer | Failed
_LINES = MessageLines[Message](Message)
encode, decode = _LINES.encode, _LINES.decode
