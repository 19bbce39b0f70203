"""Requests to the Hub process and its replies, one JSON object a line, and model cards.

Needs no Hub client.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from worker.core.lora_files.metadata import AdapterMetadata

PEFT_FILE = "pytorch_lora_weights.safetensors"
PROGRESS, DONE, FAILED = "progress", "done", "failed"
CANCEL = "cancel"  # sent after the request: undo what was begun
LEFT = "hub_left"  # error code: undoing failed


@dataclass(frozen=True)
class HubRequest:
    """A request: `what` names the work, `values` are its JSON arguments."""

    what: str
    endpoint: str
    token: str | None
    values: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The request as a line of input."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def read(cls, line: str) -> HubRequest:
        """The request in a line."""
        return cls(**json.loads(line))


@dataclass(frozen=True)
class HubReply:
    """A reply: any number of `progress`, then one `done` or `failed`."""

    kind: str
    values: dict[str, Any]

    def line(self) -> str:
        """The reply as a line of output."""
        return json.dumps({"kind": self.kind} | self.values) + "\n"

    @classmethod
    def read(cls, line: bytes) -> HubReply | None:
        """The reply in a line; None when the line is not a reply."""
        try:
            content = json.loads(line)
            return cls(content.pop("kind"), content)
        except (ValueError, AttributeError, KeyError):
            return None

    @property
    def path(self) -> Path:
        """Path of the downloaded file or folder."""
        return Path(self.values["path"])


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """Content of a model card; `pictures` are (path in the repository, prompt).

    `base_model` is its name on the Hub, empty when it has none there.
    """

    metadata: AdapterMetadata
    version: int
    kohya_file: str
    base_model: str = ""
    rank: int = 0
    alpha: float = 0.0
    steps: int | None = None
    trained: int | None = None
    pictures: list[tuple[str, str]] = field(default_factory=list)
