"""What the Hub process is told and what it answers, one JSON object a line; plain, no client."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PROGRESS, DONE, FAILED = "progress", "done", "failed"
CANCEL = "cancel"  # a line after the order: what was begun is undone
LEFT = "hub_left"  # the code of a failure to undo it


@dataclass(frozen=True)
class Order:
    """A piece of work: `what` names it, `values` are its own, JSON only."""

    what: str
    endpoint: str
    token: str | None
    values: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The order as it goes to the process."""
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def read(cls, line: str) -> Order:
        """The order a line holds."""
        return cls(**json.loads(line))


@dataclass(frozen=True)
class Answer:
    """What the process says: progress on its way, then one that is `done` or `failed`."""

    kind: str
    values: dict[str, Any]

    def line(self) -> str:
        """The answer as it comes from the process."""
        return json.dumps({"kind": self.kind} | self.values) + "\n"

    @classmethod
    def read(cls, line: str) -> Answer | None:
        """The answer a line holds; None when the line is none of ours."""
        try:
            content = json.loads(line)
            return cls(content.pop("kind"), content)
        except (ValueError, AttributeError, KeyError):
            return None

    @property
    def path(self) -> Path:
        """Where what was fetched lies."""
        return Path(self.values["path"])
