"""REST: people, their roles, and links with which they choose a password, for administrators."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Self

from fastapi import Depends, Request, Response
from pydantic import BaseModel, Field, StrictBool

from app.registry.actor import MAX_BYTES, MAX_MINUTES, MAX_WAITING, Role
from app.registry.db import Session
from app.registry.people import invitations, overview, service, shares
from app.registry.people.leaving import transfer
from app.registry.people.overview import QuotaUse
from app.registry.tables.people import User
from app.registry.wording import aware
from app.web.access.needs import Action, Router
from app.web.access.person import Person, require_person
from app.web.answers import Answer
from app.web.problems import problems
from app.web.rest.bodies import Patch, change, example
from app.web.rest.lists import Part
from app.web.state import Id, Reading, Writing

router = Router(tags=["people"])
WITH_ACCOUNTS: Any = {
    "dependencies": [Depends(require_person)],
    "responses": problems({404: "This server has no accounts."}),
}
"""Of routes that would work without people; the others find nobody."""
REFUSED = problems({409: "The name is somebody's already, or nobody else is an administrator."})
DISK = "Quota of bytes; null: that of the settings, 0: no limit."
DEVICE = "Quota of minutes of devices in 30 days; null and 0: the same."
WAITING = "Quota of runs and renders that wait; null and 0: the same."
PersonName = Annotated[str, Field(max_length=240)]


class PersonIn(BaseModel):
    """A new person."""

    model_config = example(name="Farah", role="member")
    name: PersonName = Field(description="The name to log in with, 1 to 60 characters.")
    role: Role = Field(Role.MEMBER, description="What they may do.")


class PersonPatch(Patch):
    """The changes to a person; absent fields stay."""

    model_config = example(role="viewer")
    name: PersonName = change("New name.")
    role: Role = change("New role.")
    disabled: StrictBool = change("True: they cannot log in, and their sessions end.")
    disk_bytes: Annotated[int, Field(ge=0, le=MAX_BYTES)] | None = change(DISK)
    device_minutes: Annotated[int, Field(ge=0, le=MAX_MINUTES)] | None = change(DEVICE)
    waiting_jobs: Annotated[int, Field(ge=0, le=MAX_WAITING)] | None = change(WAITING)


class TransferIn(BaseModel):
    """The person who gets the things of another."""

    model_config = example(to="Ben")
    to: PersonName = Field(description="Name of the person who gets them.")


class TransferOut(BaseModel):
    """What has another owner now."""

    moved: int = Field(description="Number of things.")


class PersonOut(Answer):
    """A person with an account."""

    address: ClassVar[str] = "/api/v1/people/{id}"
    id: int = Field(description="Id of the person.")
    name: str = Field(description="The name to log in with.")
    role: Role = Field(description="What they may do.")
    disabled: bool = Field(description="True if they cannot log in.")
    created_at: datetime = Field(description="When they were invited.")
    seen_at: datetime | None = Field(description="When they were last here, to five minutes.")
    disk_bytes: int | None = Field(description=DISK)
    device_minutes: int | None = Field(description=DEVICE)
    waiting_jobs: int | None = Field(description=WAITING)
    use: list[QuotaUse] = Field(description="What they take of what can be limited.")

    @classmethod
    def of_user(cls, session: Session, user: User, **derived: Any) -> Self:
        """A person as the API shows them."""
        derived["use"] = overview.usage_of(session, user)
        seen = user.seen_at and aware(user.seen_at)
        times = {"created_at": aware(user.created_at), "seen_at": seen}
        return cls.of(user, disabled=user.disabled_at is not None, **times, **derived)


class InvitedOut(PersonOut):
    """A person, and a link that is shown once."""

    link: str = Field(description="Where they choose a password, once and within 72 hours.")


@router.get("/me", Action.LOOK, **WITH_ACCOUNTS)
def get_me(session: Reading, person: Person) -> PersonOut:
    """Show the person behind the request, and what they take of their quotas."""
    return PersonOut.of_user(session, service.get_user(session, person.user_id))


@router.get("/people", Action.ADMIN, **WITH_ACCOUNTS)
def list_people(session: Reading, part: Part) -> list[PersonOut]:
    """List all people by name, also those who are disabled."""
    people = part.of(service.list_users(session), lambda user: user.key)
    return [PersonOut.of_user(session, user) for user in people]


@router.post("/people", Action.ADMIN, status_code=201, **WITH_ACCOUNTS)
def invite_person(
    body: PersonIn, request: Request, response: Response, session: Writing
) -> InvitedOut:
    """Add a person, and answer the link with which they choose a password.

    No other answer has the link: sent again with the same `Idempotency-Key`, this is a 409.
    """
    user = service.add_user(session, body.name, body.role)
    return _with_link(session, user, request, response)


@router.get("/people/{person_id}", Action.ADMIN)
def get_person(person_id: Id, session: Reading) -> PersonOut:
    """Show a person."""
    return PersonOut.of_user(session, service.get_user(session, person_id))


@router.patch("/people/{person_id}", Action.ADMIN, responses=REFUSED)
def change_person(person_id: Id, body: PersonPatch, session: Writing) -> PersonOut:
    """Rename a person, give them a role or quotas, disable or enable them.

    It holds from their next request on.
    """
    user = overview.change(
        session,
        person_id,
        name=body.name,
        role=body.role,
        disabled=body.disabled,
        limits=body.model_dump(include=set(overview.MOST), exclude_unset=True),
    )
    return PersonOut.of_user(session, user)


@router.post("/people/{person_id}/reset", Action.ADMIN)
def reset_person(
    person_id: Id, request: Request, response: Response, session: Writing
) -> InvitedOut:
    """Answer a new link for a person.

    Earlier links are void, and the password stays until this one is used. No other answer has the
    link: sent again with the same `Idempotency-Key`, it is another one.
    """
    return _with_link(session, service.get_user(session, person_id), request, response)


@router.post("/people/{person_id}/withdraw", Action.ADMIN)
def withdraw_link(person_id: Id, session: Writing) -> PersonOut:
    """Void the link of a person; the password stays."""
    return PersonOut.of_user(session, invitations.withdraw(session, person_id))


@router.post("/people/{person_id}/transfer", Action.ADMIN)
def transfer_things(person_id: Id, body: TransferIn, session: Writing) -> TransferOut:
    """Make all that a person has another's."""
    leaver = service.get_user(session, person_id)
    heir = shares.person_named(session, body.to, "to")
    return TransferOut(moved=transfer(session, leaver, heir))


def _with_link(session: Session, user: User, request: Request, response: Response) -> InvitedOut:
    """The person with a new link, which is stored nowhere, also not for an idempotency key."""
    token = invitations.make_invitation(session, user)
    response.headers["cache-control"] = "no-store"
    return InvitedOut.of_user(
        session, user, link=invitations.invitation_url(str(request.base_url), token)
    )
