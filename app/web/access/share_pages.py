"""Who sees a thing and who may edit it: a panel on the page of the thing, and a page of its own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from fastapi import Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from app.registry.actor import Visibility
from app.registry.db import Session
from app.registry.errors import Conflict, Forbidden, InvalidInput
from app.registry.people import shares
from app.registry.people.shares import ThingKind
from app.web import templates
from app.web.access.needs import Action, Router
from app.web.access.person import require_person
from app.web.state import Id, Reading, State

router = Router(include_in_schema=False, dependencies=[Depends(require_person)])
Edits = Literal["", "none", "see", "edit"]
ShortText = Annotated[str, Form(max_length=240)]


@dataclass(frozen=True)
class ShareView:
    """The standing of a thing, what else may be chosen, and how the last change is undone.

    `restores`: that would restore what goes along with the thing as well.
    """

    standing: shares.Standing
    people: list[str]
    undo: dict[str, str] = field(default_factory=dict)
    restores: bool = True
    error: str = ""

    @property
    def address(self) -> str:
        """The address of the panel."""
        return f"/share/{self.standing.kind}/{self.standing.thing_id}"


@router.get("/share/{kind}/{thing_id}", Action.LOOK)
def show_sharing(kind: ThingKind, thing_id: Id, request: Request, session: Reading) -> Response:
    """Show who sees a thing."""
    view = _view(session, kind, thing_id)
    return _answer(request, view)


@router.post("/share/{kind}/{thing_id}", Action.OWN)
def change_sharing(
    kind: ThingKind,
    thing_id: Id,
    request: Request,
    state: State,
    visibility: Annotated[Visibility | None, Form()] = None,
    name: ShortText = "",
    edits: Annotated[Edits, Form()] = "",
) -> Response:
    """Change its visibility, or what one person may; `edits`: none takes the share back."""
    try:
        with state.database.write() as session:
            thing = shares.thing_named(session, kind, thing_id)
            if visibility is not None:
                undo = {"visibility": str(thing.visibility)}
                restores = shares.is_uniform(session, thing)
                shares.set_visibility(session, thing, visibility)
            else:
                undo, restores = _share(session, thing, name, edits)
            view = replace(_view(session, kind, thing_id, undo=undo), restores=restores)
    except (Forbidden, Conflict, InvalidInput) as error:
        with state.database.read() as session:
            view = _view(session, kind, thing_id, error=error.detail)
    if not templates.wants_fragment(request) and not view.error:
        return RedirectResponse(view.address, status_code=303)
    return _answer(request, view)


def _share(session: Session, thing: object, name: str, edits: Edits) -> tuple[dict[str, str], bool]:
    """Share with the person of this name; how that is undone, as `undo` and `restores`."""
    user = shares.person_named(session, name)
    restores = shares.is_uniform(session, thing, user)
    before = {one.key: edits for one, edits in shares.shares_of(session, thing)}.get(user.key)
    if edits == "none":
        shares.unshare(session, thing, user)
    else:
        shares.share(session, thing, user, edits=edits == "edit")
    undo = {"name": user.name, "edits": {None: "none", True: "edit", False: "see"}[before]}
    return undo, restores


def _view(
    session: Session,
    kind: ThingKind,
    thing_id: int,
    *,
    undo: dict[str, str] | None = None,
    error: str = "",
) -> ShareView:
    thing = shares.thing_named(session, kind, thing_id)
    standing = shares.standing(session, thing)
    assert standing is not None
    return ShareView(
        standing=standing,
        people=shares.people_to_share_with(session, thing) if standing.may_own else [],
        undo=undo or {},
        error=error,
    )


def _answer(request: Request, view: ShareView) -> Response:
    status = 422 if view.error else 200
    if templates.wants_fragment(request):
        return templates.render_fragment("access/_share.html", view=view, status=status)
    return templates.render(request, "access/share.html", view=view, status=status)
