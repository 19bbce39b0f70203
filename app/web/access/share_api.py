"""REST: who sees a thing, and who may edit it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from pydantic import BaseModel, Field, StrictBool

from app.registry.actor import Visibility
from app.registry.db import Session
from app.registry.people import shares
from app.registry.people.shares import ThingKind
from app.web.access.needs import Action, Router
from app.web.access.person import require_person
from app.web.answers import Answer
from app.web.rest.bodies import example
from app.web.state import Id, Reading, Writing
from worker.core.documented import DocumentedModel

router = Router(tags=["people"], dependencies=[Depends(require_person)])
MOST_SHARES = 200


class SharedWith(BaseModel):
    """A person that a thing is shared with."""

    name: str = Field(max_length=240, description="The person.")
    may_edit: StrictBool = Field(False, description="Whether they may change it.")


class SharingOut(Answer):
    """Who sees a thing; `shares` and `sources` are told to who may change them."""

    owner: str = Field(description="The person that it belongs to.")
    visibility: Visibility = Field(description="Who else sees it, and may edit it.")
    may_edit: bool = Field(description="Whether you may change it.")
    may_own: bool = Field(description="Whether you may share and delete it.")
    shares: list[SharedWith] = Field(description="The people that it is shared with.")
    sources: list[str] = Field(description="The private things that it was made from.")


class SharingIn(DocumentedModel):
    """Who sees a thing, as a whole."""

    model_config = example(visibility="private", shares=[{"name": "Ben", "may_edit": True}])

    visibility: Visibility = Field(description="Who sees it: a private thing only its owner.")
    shares: Annotated[list[SharedWith], Field(max_length=MOST_SHARES)]
    """The people that it is shared with, whatever its visibility; no others."""


@router.get("/sharing/{thing}/{thing_id}", Action.LOOK)
def get_sharing(thing: ThingKind, thing_id: Id, session: Reading) -> SharingOut:
    """Tell who sees a thing, and what you may do with it."""
    return _sharing(session, thing, thing_id)


@router.put("/sharing/{thing}/{thing_id}", Action.OWN)
def set_sharing(thing: ThingKind, thing_id: Id, body: SharingIn, session: Writing) -> SharingOut:
    """Change who sees a thing, and what was drawn to judge it.

    Publishing it needs the right to publish every private thing that it was made from.
    """
    row = shares.thing_named(session, thing, thing_id)
    shares.set_visibility(session, row, body.visibility)
    wanted = {shares.person_named(session, one.name).key: one.may_edit for one in body.shares}
    shares.set_shares(session, row, wanted)
    return _sharing(session, thing, thing_id)


def _sharing(session: Session, kind: ThingKind, thing_id: int) -> SharingOut:
    standing = shares.standing(session, shares.thing_named(session, kind, thing_id))
    assert standing is not None
    people = [SharedWith(name=user.name, may_edit=edits) for user, edits in standing.shares]
    return SharingOut.of(standing, shares=people)
