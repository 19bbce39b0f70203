"""Tables of blind tests: images of unnamed candidates side by side, and what judges answered."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field

from app.registry.actor import MAX_CHARACTERS
from app.registry.db import AUTOINCREMENT, PlainJSON, utcnow
from app.registry.tables.owned import Owned
from app.registry.tables.renders import MAX_TITLE
from app.registry.tables.rows import NumberedRow, Restorable


class Question(StrEnum):
    """The question that each pair of a test asks."""

    CLOSER = "closer"
    KEEP = "keep"


class Choice(StrEnum):
    """The answer of a judge to a pair."""

    LEFT = "left"
    RIGHT = "right"
    TIE = "tie"


class PairKind(StrEnum):
    """What a pair is for: it counts, or it is one of two that check the judge."""

    COUNTED = "counted"
    REPEAT = "repeat"
    CONTROL = "control"


class BlindTest(Restorable, Owned, NumberedRow, table=True):
    """A test; the images of its candidates are the cells of a grid of its own."""

    __tablename__ = "blind_test"
    __table_args__ = (AUTOINCREMENT,)

    title: str = Field(max_length=MAX_TITLE)
    question: str = Field(max_length=8, description="`closer` or `keep`.")
    candidates: list[dict[str, Any]] = Field(
        sa_type=PlainJSON,  # the grid's renders refer to adapters
        description="Of each: label, and of a single version adapter_id, version and weight.",
    )
    references: list[str] = Field(default_factory=list, sa_type=sa.JSON)
    """Hashes of the dataset images in view."""
    controls: list[str] = Field(default_factory=list, sa_type=sa.JSON)
    """Hashes of the dataset images that stand against the base model's."""
    grid_id: int | None = Field(default=None, description="Candidates as columns, scenes as rows.")
    control_grid_id: int | None = Field(default=None, description="The base model's images.")
    run_id: int | None = Field(default=None, index=True, description="It asks about this run.")
    adapter_id: int | None = Field(default=None, index=True, description="Or this adapter.")
    seed: int
    created_at: datetime = Field(default_factory=utcnow)
    ended_at: datetime | None = Field(default=None, description="When it told who is who.")

    @property
    def labels(self) -> Sequence[str]:
        """The names of its candidates."""
        return [one["label"] for one in self.candidates]

    @property
    def question_text(self) -> str:
        """The question in words."""
        is_closer = self.question == Question.CLOSER
        return "Which is closer to these?" if is_closer else "Which would you keep?"


class BlindVote(NumberedRow, table=True):
    """A pair that a judge was shown, and the answer once there is one."""

    __tablename__ = "blind_vote"
    __table_args__ = (sa.UniqueConstraint("test_id", "judge", "number"),)

    test_id: int = Field(foreign_key="blind_test.id", index=True)
    judge: str = Field(max_length=MAX_CHARACTERS)
    number: int = Field(description="Place in the sequence of the judge, from 1.")
    kind: str = Field(max_length=8, description="`counted`, `repeat` or `control`.")
    scene: int = Field(description="Row of the grid; of a control, its number.")
    left: int = Field(description="Candidate, from 0; of a control 0: real, 1: the base model.")
    right: int
    answer: str | None = Field(default=None, max_length=8, description="`left`, `right` or `tie`.")
    answered_at: datetime | None = None

    @property
    def chosen(self) -> int | None:
        """The candidate that was chosen; None: no difference, or no answer yet."""
        return {"left": self.left, "right": self.right}.get(self.answer or "")

    def points(self, candidate: int) -> float:
        """What its answer gives to one of the two: 1, 0.5 for no difference, or 0."""
        return 0.5 if self.chosen is None else float(self.chosen == candidate)
