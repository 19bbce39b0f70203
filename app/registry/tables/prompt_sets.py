"""Table of prompt sets: named lists of subjects that runs, evaluations and grids draw."""

from __future__ import annotations

from sqlmodel import Field

from app.registry.db import AUTOINCREMENT, PlainJSON
from app.registry.slugs import LONGEST_SLUG
from app.registry.tables.owned import Owned
from app.registry.tables.rows import NumberedRow, Restorable
from app.registry.validation import MAX_NAME


class PromptSet(Restorable, Owned, NumberedRow, table=True):
    """A set with all of its versions, which never change; its slug stays when it is renamed."""

    __tablename__ = "prompt_set"
    __table_args__ = AUTOINCREMENT

    slug: str = Field(max_length=LONGEST_SLUG, unique=True)
    name: str = Field(max_length=MAX_NAME)
    versions: list[list[str]] = Field(sa_type=PlainJSON)
    """The subjects of each version, the first one first."""

    @property
    def version(self) -> int:
        """The number of its newest version, from 1."""
        return len(self.versions)

    @property
    def subjects(self) -> list[str]:
        """The subjects of its newest version."""
        return self.versions[-1]
