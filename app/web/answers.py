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
    def of(cls, *rows: object, **derived: Any) -> Self:
        """Each field of the first row that has it; `derived`: those that none has, or as it shows.

        Raises AttributeError for a field that no row has.
        """
        copied = {}
        for name in cls.model_fields.keys() - derived.keys():
            row = next((one for one in rows[:-1] if hasattr(one, name)), rows[-1])
            copied[name] = getattr(row, name)
        return cls(**copied, **derived)


def image_urls(sha256: str | None) -> dict[str, str | None]:
    """The addresses of an image and of a small WebP of it, as fields of an answer."""
    url = f"/media/{sha256}" if sha256 else None
    return {"url": url, "thumbnail_url": url and f"{url}/small"}
