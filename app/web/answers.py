"""Answers of the API as projections: the class lists the fields that it shows of a row."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from app.registry.actor import Visibility
from app.registry.api_records import ANSWER
from app.registry.job_kinds.states import JobStatus
from app.web.owners import owner_name
from worker.core.documented import DocumentedModel


class Answer(DocumentedModel):
    """An answer that reads its fields from a row; a new column of the row never appears in it."""

    model_config = ANSWER

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


class OwnedAnswer(Answer):
    """An answer about a thing, which says whose it is; read from the first row that is owned."""

    owner: str | None = Field(description="The person it belongs to; null without accounts.")
    visibility: Visibility | None
    """Who else sees it, and may edit it; null without accounts."""

    @classmethod
    def of(cls, *rows: object, **derived: Any) -> Self:
        """As of every answer."""
        return super().of(*rows, **(whose_of(*rows) | derived))


def whose_of(*rows: object) -> dict[str, str | None]:
    """The owner and the visibility of the first row that has them, as fields of an answer."""
    thing: Any = next((row for row in rows if hasattr(row, "owner_id")), None)
    owner = owner_name(thing) if thing else None
    return {"owner": owner, "visibility": None if owner is None else thing.visibility}


class JobAnswer(Answer):
    """What is known of a job of any kind."""

    id: int = Field(description="Its id: poll its address, as in `Location`, until it has ended.")
    status: JobStatus = Field(description="Its status.")
    error: str | None = Field(description="Why it failed, as a sentence.")


class WorkAnswer(JobAnswer):
    """What is known of a job that tells how far it is."""

    progress: float = Field(description="Share of the work that is done, 0 to 1.")
    waits_for: str | None
    """What it waits for during an outage or on a full disk, as a sentence."""


def image_urls(sha256: str | None) -> dict[str, str | None]:
    """The addresses of an image and of a small WebP of it, as fields of an answer."""
    url = f"/media/{sha256}" if sha256 else None
    return {"url": url, "thumbnail_url": url and f"{url}/small"}
