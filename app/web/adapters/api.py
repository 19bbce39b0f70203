"""REST: adapters."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Self

from fastapi import Query, Response
from pydantic import Field, StrictBool, StringConstraints, model_validator

from app.registry.adapters import service
from app.registry.adapters.service import AdapterSummary
from app.registry.people.whose import only
from app.registry.renders.covers import choose_cover
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.validation import Name
from app.web.access.needs import Action, Router
from app.web.answers import Answer, OwnedAnswer
from app.web.openapi import header_docs
from app.web.problems import problems
from app.web.rest.bodies import Patch, change, example
from app.web.rest.lists import Part, Whose
from app.web.state import AdapterId, Reading, Writing
from worker.core.families.family import BaseFamily
from worker.core.lora_files.weights import WeightCard
from worker.core.old_names import accept_old_names

router = Router(tags=["adapters"])

UNLISTED = problems({409: "It holds the checkpoints of a run."})
Tag = Annotated[str, StringConstraints(strip_whitespace=True, max_length=service.MAX_TAG_LENGTH)]
Line = Annotated[str, StringConstraints(strip_whitespace=True, max_length=120)]


class VersionFacts(Answer):
    """What is known of a version of an adapter, wherever it is answered."""

    sha256: str = Field(description="SHA-256 of the canonical fp32 file.")
    size_bytes: int = Field(description="Size of the canonical file.")
    rank: int = Field(description="Rank of its matrices.")
    alpha: float = Field(description="Alpha: the strength is alpha / rank.")
    usual_weight: float = Field(description="The weight that is used when none is named.")
    weight_cards: list[WeightCard]
    """Where its style starts to show, is best, and breaks, by base model; empty until that is
    measured."""
    steps: int | None = Field(description="Training steps.")
    ruined: str | None = Field(description="Why its training was ruined; null: it was not.")
    run_id: int | None = Field(description="The run that trained it.")
    base_model: int | None = Field(description="Id of its base model.")
    trainable_parameters: int | None = Field(description="Its parameters.")
    base_parameters: int | None = Field(description="Parameters of its base model.")
    peak_memory_bytes: int | None = Field(description="Highest memory use of the training.")
    training_seconds: float | None = Field(description="Training time.")
    created_at: datetime = Field(description="When it was made.")

    @classmethod
    def of_version(cls, version: AdapterVersion, *rows: object, **derived: Any) -> Self:
        """An answer about a version; `rows`: what else it reads, before the version."""
        cards = list(version.weight_cards.values())
        known = {"run_id": version.run_id, "base_model": version.base_model_id}
        return cls.of(*rows, version, weight_cards=cards, **known, **derived)


class AdapterOut(OwnedAnswer, VersionFacts):
    """An adapter with its newest version."""

    address: ClassVar[str] = "/api/v1/adapters/{id}"
    id: int = Field(description="Id of the adapter.")
    slug: str = Field(description="Its name in files and addresses.")
    name: str = Field(description="Its name.")
    base_family: str = Field(description="Family of base models that it fits.", examples=["sd1"])
    trigger_words: list[str] = Field(description="Words that call the style in a prompt.")
    tags: list[str] = Field(description="Your tags.")
    notes: str = Field(description="Your notes.")
    license: str = Field(description="Its license.", examples=["CC-BY-4.0"])
    starred: bool = Field(description="True if you starred it.")
    version: int = Field(description="Number of its newest version, which the rest describes.")
    versions: int = Field(description="Number of its versions.")
    cover_sha256: str | None = Field(description="SHA-256 of its cover, chosen or the usual one.")
    cover_url: str | None = Field(description="Address of its cover.")
    cover_thumbnail_url: str | None = Field(description="Address of a small WebP of its cover.")
    import_notes: list[str]
    """What was read in another way than it was written, with the measured error."""


class AdapterPatch(Patch):
    """The changes to an adapter; absent fields stay."""

    model_config = example(starred=True, tags=["ink"])
    name: Name = change("New name.")
    notes: Annotated[str, Field(max_length=20_000)] = change(
        "Never part of a download unless requested."
    )
    license: Annotated[str, Field(max_length=80)] = change(
        "License of the downloads, such as CC-BY-4.0."
    )
    cover_sha256: Annotated[str, Field(max_length=64, pattern="^[0-9a-f]{64}$")] | None = None
    """SHA-256 of an image made with it or by its run; null: the usual cover, its first sample."""
    starred: StrictBool = change("Starred ones can be listed on their own.")
    trigger_words: Annotated[list[Line], Field(max_length=20)] = change(
        "Replaces the trigger words."
    )
    tags: Annotated[list[Tag], Field(max_length=service.MAX_TAGS)] = change("Replaces the tags.")

    @model_validator(mode="before")
    @classmethod
    def _old_names(cls, values: Any) -> Any:
        return accept_old_names(values)


def adapter_out(row: AdapterSummary) -> AdapterOut:
    """An adapter as the API shows it."""
    adapter, version = row.adapter, row.version
    cover = row.covers[0] if row.covers else None
    return AdapterOut.of_version(
        version,
        adapter,
        tags=row.tags,
        versions=row.version_count,
        cover_sha256=cover,
        cover_url=f"/media/{cover}" if cover else None,
        cover_thumbnail_url=f"/media/{cover}/small" if cover else None,
        import_notes=list(version.details.get("import_notes", [])),
    )


@router.get("/adapters", Action.LOOK, responses=header_docs("x-total-count-more"))
def list_adapters(
    session: Reading,
    response: Response,
    part: Part,
    q: Annotated[
        str,
        Query(
            max_length=200,
            description='Words in names, trigger words, tags, notes and bases; `"two words"` as '
            "a phrase.",
        ),
    ] = "",
    base: Annotated[
        BaseFamily | None, Query(description="Only adapters of this base family.")
    ] = None,
    tag: Annotated[
        list[Tag],
        Query(max_length=10, description="Only adapters with this tag; may be repeated."),
    ] = [],  # noqa: B006  (FastAPI copies it)
    starred: Annotated[bool, Query(description="Only starred ones.")] = False,
    sort: Annotated[service.Sort, Query(description="Order.")] = service.Sort.NEWEST,
    whose: Whose = None,
) -> list[AdapterOut]:
    """List or search adapters, newest first by default."""
    filters = service.Filter(
        q, base or "", tuple(tag), starred, sort, after=part.mark, limit=part.limit
    )
    with only(session, Adapter, whose):
        found = service.list_adapters(session, filters)
    part.link(found.next, found.total)
    if found.more:
        response.headers["x-total-count-more"] = "true"
    return [adapter_out(row) for row in found.items]


@router.get("/adapters/{adapter_id}", Action.LOOK)
def get_adapter(adapter_id: AdapterId, session: Reading) -> AdapterOut:
    """Get an adapter."""
    adapter = service.get_adapter(session, adapter_id)
    return adapter_out(service.summary(session, adapter))


@router.patch("/adapters/{adapter_id}", Action.EDIT, responses=UNLISTED)
def change_adapter(adapter_id: AdapterId, body: AdapterPatch, session: Writing) -> AdapterOut:
    """Change name, notes, license, star, cover, trigger words or tags.

    Its versions never change.
    """
    change = service.AdapterChange(**body.model_dump(exclude={"cover_sha256"}))
    adapter = service.change_adapter(session, adapter_id, change)
    if "cover_sha256" in body.model_fields_set:
        choose_cover(session, adapter_id, body.cover_sha256)
    return adapter_out(service.summary(session, adapter))
