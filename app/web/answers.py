"""Answers of the API as projections: the class lists the fields that it shows of a row."""

from __future__ import annotations

from typing import Any, Self

from pydantic import AliasGenerator, BaseModel, ConfigDict


def name_of(field: str) -> str:
    """The name of a field in the API: `is_kept` of a row is `kept`, as all booleans are."""
    return field.removeprefix("is_")


class Answer(BaseModel):
    """An answer that reads its fields from a row; a new column of the row never appears in it."""

    model_config = ConfigDict(
        from_attributes=True, alias_generator=AliasGenerator(serialization_alias=name_of)
    )

    @classmethod
    def of(cls, row: object, **derived: Any) -> Self:
        """The fields of a row; `derived`: those that it lacks or that differ from its own."""
        copied = {name: getattr(row, name) for name in cls.model_fields if name not in derived}
        return cls(**copied, **derived)
