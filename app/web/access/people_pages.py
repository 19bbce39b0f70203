"""The page of administrators: people, their roles, and links for new ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, Form, Request
from starlette.responses import Response

from app.registry.actor import ROLE_WORDS, Role
from app.registry.db import MAX_ID
from app.registry.errors import Conflict, InvalidInput
from app.registry.people import invitations, overview, service
from app.registry.people.leaving import transfer
from app.web.access.needs import Action, Router
from app.web.access.person import require_person
from app.web.state import Id, State, Writing, session_of
from app.web.templates import redirect_with_notice, render

router = Router(include_in_schema=False, dependencies=[Depends(require_person)])
Name = Annotated[str, Form(max_length=2_000)]
Quantity = Annotated[str | None, Form(max_length=60)]
Heir = Annotated[int, Form(ge=1, le=MAX_ID)]


@dataclass(frozen=True)
class NewLink:
    """A link that is shown once."""

    name: str
    role: str
    url: str


@router.get("/people", Action.ADMIN)
def show_people(request: Request) -> Response:
    """List people and the links that nobody has used yet."""
    return _page(request)


@router.post("/people", Action.ADMIN)
def invite(
    request: Request, state: State, name: Name = "", role: Annotated[Role, Form()] = Role.MEMBER
) -> Response:
    """Add a person, and show the link with which they choose a password."""
    try:
        with state.database.write() as session:
            user = service.add_user(session, name, role)
            token = invitations.make_invitation(session, user)
    except (InvalidInput, Conflict) as error:
        return _page(request, name=name, role=role, error=error.detail)
    return _page(request, link=_link(request, user.name, user.role, token))


@router.post("/people/{person_id}", Action.ADMIN)
def change_person(
    request: Request,
    person_id: Id,
    state: State,
    name: Annotated[str | None, Form(max_length=2_000)] = None,
    role: Annotated[Role | None, Form()] = None,
    act: Annotated[Literal["", "disable", "enable"], Form()] = "",
    disk_bytes: Quantity = None,
    device_minutes: Quantity = None,
    waiting_jobs: Quantity = None,
) -> Response:
    """Rename a person, give them a role or quotas, disable or enable them."""
    disabled = {"disable": True, "enable": False}.get(act)
    typed = dict(zip(overview.MOST, (disk_bytes, device_minutes, waiting_jobs), strict=True))
    try:
        limits = overview.read_quotas(typed)
        with state.database.write() as session:
            user = overview.change(
                session, person_id, name=name, role=role, disabled=disabled, limits=limits
            )
    except InvalidInput as error:
        typed["name"] = name
        return _page(request, about=person_id, typed=typed, errors=error.fields)
    except Conflict as error:
        return _page(request, refused=error.detail)
    words = "disabled" if user.disabled_at else ROLE_WORDS[Role(user.role)].lower()
    return redirect_with_notice("/people", f"Saved: {user.name}, {words}.", request=request)


@router.post("/people/{person_id}/reset", Action.ADMIN)
def make_link(request: Request, person_id: Id, state: State) -> Response:
    """Show a new link for a person; earlier ones are void."""
    try:
        with state.database.write() as session:
            user = service.get_user(session, person_id)
            token = invitations.make_invitation(session, user)
    except Conflict as error:
        return _page(request, refused=error.detail)
    return _page(request, link=_link(request, user.name, user.role, token))


@router.post("/people/{person_id}/withdraw", Action.ADMIN)
def withdraw_link(person_id: Id, session: Writing) -> Response:
    """Void the link of a person."""
    user = invitations.withdraw(session, person_id)
    return redirect_with_notice("/people", f"The link for {user.name} is withdrawn.")


@router.post("/people/{person_id}/transfer", Action.ADMIN)
def transfer_things(request: Request, person_id: Id, state: State, heir: Heir) -> Response:
    """Make all that a person has another's."""
    try:
        with state.database.write() as session:
            user, other = service.get_user(session, person_id), service.get_user(session, heir)
            moved = transfer(session, user, other)
    except Conflict as error:
        return _page(request, refused=error.detail)
    return redirect_with_notice("/people", f"{moved:,} things of {user.name} are {other.name}'s.")


def _link(request: Request, name: str, role: str, token: str) -> NewLink:
    return NewLink(name, role, invitations.invitation_url(str(request.base_url), token))


def _page(
    request: Request,
    *,
    link: NewLink | None = None,
    name: str = "",
    role: str = Role.MEMBER,
    error: str = "",
    refused: str = "",
    about: int = 0,
    typed: dict[str, str | None] | None = None,
    errors: dict[str, str] | None = None,
) -> Response:
    """The page; `errors`: of the fields that were `typed` about this person."""
    with session_of(request) as session:
        people, links = overview.list_people(session), overview.open_links(session)
    return render(
        request,
        "people/index.html",
        status=422 if error or refused or errors else 200,
        people=people,
        links=links,
        link=link,
        name=name,
        role=role,
        error=error,
        refused=refused,
        about=about,
        typed=typed,
        errors=errors or {},
        quota_fields=QUOTA_FIELDS,
        quota_text=overview.quota_text,
        quota_words=QUOTA_WORDS,
        roles=[(one.value, words) for one, words in ROLE_WORDS.items()],
        valid_hours=int(invitations.VALID.total_seconds()) // 3600,
    )


QUOTA_FIELDS = (
    ("disk_bytes", "Disk"),
    ("device_minutes", "Device hours in 30 days"),
    ("waiting_jobs", "Waiting jobs"),
)
QUOTA_WORDS = {"waiting": "waiting", "device": "of devices", "disk": "of disk"}
