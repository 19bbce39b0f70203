"""The base of all tables whose rows have a number."""

from __future__ import annotations

from sqlmodel import Field, SQLModel


class NumberedRow(SQLModel):
    """The id of a row, given when it is stored."""

    id: int | None = Field(default=None, primary_key=True)

    @property
    def key(self) -> int:
        """The id of a row that was stored."""
        assert self.id is not None
        return self.id
