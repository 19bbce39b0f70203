"""REST: adapters by the nearness of their styles to that of something."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from fastapi import File, Query, UploadFile
from pydantic import Field

from app.registry.db import Session
from app.registry.job_kinds.states import JobStatus
from app.registry.likeness import similar
from app.registry.likeness.similar import Reference
from app.registry.tables.blobs import Basis
from app.web.access.needs import Action, Router
from app.web.adapters.api import AdapterOut, adapter_out
from app.web.answers import Answer, image_urls
from app.web.forms import uploaded
from app.web.problems import problems
from app.web.rest.lists import ListPart, Part
from app.web.state import AdapterId, DatasetId, Id, Reading, State
from worker.core.families.family import BaseFamily

router = Router(tags=["adapters"])

UNMEASURED = problems({409: "It has no image, or is not measured yet: `not_measured`."})
Family = Annotated[BaseFamily | None, Query(description="Only adapters of this base family.")]


class SimilarOut(Answer):
    """An adapter with the distance of its style, and the two images that are nearest."""

    adapter: AdapterOut = Field(description="The adapter.")
    distance: float = Field(description="Of the styles: 0 is the same, less is nearer.")
    is_nearly_same: bool = Field(
        description=f"True up to {similar.NEARLY_SAME:g}: so far apart are trainings of one style "
        "with other seeds and images."
    )
    basis: Basis
    """`prompts`: measured in images of shared prompts; `cover`: in its cover alone."""
    own_basis: Basis
    """The same of what was asked for; `images`: of a dataset, `image`: the one sent."""
    url: str | None = Field(description="Its nearest image; null: it is gone.")
    own_url: str | None
    """The image of what was asked for; null for one that was sent, and not kept."""
    subject: str | None = Field(description="What both show; null: they show different things.")


class StyleSearchOut(Answer):
    """A search by an image that was sent."""

    address: ClassVar[str] = "/api/v1/style-searches/{id}"
    id: int = Field(description="Id of the search; it is kept for a day after its end.")
    status: JobStatus = Field(description="`succeeded`: the list can be asked for.")
    error: str | None = Field(description="Why it failed, as a sentence.")
    created_at: datetime = Field(description="When it was queued.")
    finished_at: datetime | None = Field(description="When it ended.")


@router.get("/adapters/{adapter_id}/similar", Action.LOOK, responses=UNMEASURED)
def list_similar_to_adapter(
    adapter_id: AdapterId, session: Reading, part: Part, base: Family = None
) -> list[SimilarOut]:
    """List the other adapters, those of the nearest style first.

    What has no look yet is left out, and measured within minutes.
    """
    return _list(session, similar.of_adapter(session, adapter_id), part, base)


@router.get("/datasets/{dataset_id}/similar", Action.LOOK, responses=UNMEASURED)
def list_similar_to_dataset(
    dataset_id: DatasetId, session: Reading, part: Part, base: Family = None
) -> list[SimilarOut]:
    """List the adapters whose style is nearest to the images of a dataset."""
    return _list(session, similar.of_dataset(session, dataset_id), part, base)


@router.post(
    "/style-searches",
    Action.DRAW,
    status_code=202,
    responses=problems({422: "The file is no image that can be used."}),
)
def search_by_image(
    file: Annotated[UploadFile, File(description="A PNG, JPEG or WebP image of at most 60 MB.")],
    state: State,
) -> StyleSearchOut:
    """Search by an image. A job of seconds measures it; the image is not kept."""
    return StyleSearchOut.of(similar.start_search(state, uploaded(file)))


@router.get("/style-searches/{search_id}", Action.LOOK)
def get_style_search(search_id: Id, session: Reading) -> StyleSearchOut:
    """Get a search by an image."""
    return StyleSearchOut.of(similar.get_search(session, search_id))


@router.get("/style-searches/{search_id}/similar", Action.LOOK, responses=UNMEASURED)
def list_similar_to_image(
    search_id: Id, session: Reading, part: Part, base: Family = None
) -> list[SimilarOut]:
    """List the adapters whose style is nearest to an image that was sent."""
    return _list(session, similar.of_image(session, search_id), part, base)


def _list(
    session: Session, reference: Reference, part: ListPart, base: BaseFamily | None
) -> list[SimilarOut]:
    start = part.after or 0
    found = similar.list_similar(session, reference, limit=part.limit, start=start, base=base or "")
    end = start + part.limit
    part.link(end if end < found.total else None, found.total)
    return [
        SimilarOut.of(
            one,
            one.measured,
            adapter=adapter_out(one.summary),
            own_basis=reference.measured.basis,
            url=image_urls(one.other)["url"],
            own_url=image_urls(one.own)["url"],
            subject=one.subject or None,
        )
        for one in found.items
    ]
