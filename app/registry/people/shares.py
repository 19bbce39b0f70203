"""Who sees a thing: its visibility, the people it is shared with, and what goes along with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.actor import Principal, Role, Visibility, current_principal
from app.registry.db import in_chunks, upsert
from app.registry.errors import Conflict, Forbidden, NotFound, invalid_field
from app.registry.job_kinds.kinds import JobKind
from app.registry.people.service import find_user, get_user
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.all import THINGS
from app.registry.tables.blind_tests import BlindTest
from app.registry.tables.jobs import Event, IoJob
from app.registry.tables.owned import (
    everything,
    may_edit,
    may_own,
    noun_of,
    private_sources,
    require_right,
)
from app.registry.tables.people import Share, User
from app.registry.tables.renders import Grid, GridCell, Render, RenderAdapter
from app.registry.tables.rows import UNSYNCHRONIZED, deleted_too
from app.registry.tables.runs import Run, RunDataset, Sweep

KINDS = {str(table.__tablename__): table for table in THINGS if table is not IoJob}
PAGES = {
    "adapter": "/adapters/{0.slug}",
    "base_model": "/base-models",
    "blind_test": "/blind-tests/{0.id}",
    "caption_model": "/caption-models",
    "dataset": "/datasets/{0.slug}",
    "grid": "/grids/{0.id}",
    "own_preset": "/train/presets#preset-{0.id}",
    "prompt_set": "/prompt-sets#set-{0.id}",
    "recipe": "/recipes#recipe-{0.id}",
    "render": "/renders/{0.id}",
    "run": "/runs/{0.id}",
    "sweep": "/sweeps/{0.id}",
}
"""The pages that show the things, by their kinds."""
ThingKind = StrEnum("ThingKind", sorted((kind.upper(), kind) for kind in KINDS))  # type: ignore[misc]
PARTS: dict[type[Any], tuple[tuple[type[Any], str], ...]] = {
    Run: ((RunDataset, "run_id"),),
    Adapter: ((AdapterVersion, "adapter_id"),),
    Render: ((RenderAdapter, "render_id"),),
    Grid: ((GridCell, "grid_id"),),
}
"""The parts of things that name what they were made from, with the column of the thing."""
EVALUATED: dict[type[Any], tuple[JobKind, ...]] = {
    Run: (JobKind.EVALUATE_RUN,),
    Sweep: (JobKind.ADVANCE_SWEEP,),
    AdapterVersion: (JobKind.EVALUATE_WEIGHTS,),
}
"""The jobs whose grids belong to what they evaluate."""


@dataclass(frozen=True)
class Standing:
    """A thing in the eyes of a person; `sources`: private things that it was made from."""

    kind: str
    thing_id: int
    noun: str
    page: str
    visibility: Visibility
    owner: str
    is_mine: bool
    may_edit: bool
    may_own: bool
    shares: list[tuple[User, bool]]
    sources: list[str]


def thing_named(session: Session, kind: str, thing_id: int) -> Any:
    """Look up a thing by the name of its table. Raises NotFound, also for what is hidden."""
    thing = session.get(KINDS[kind], thing_id) if kind in KINDS else None
    if thing is None:
        raise NotFound(f"There is no such {kind.replace('_', ' ')}.")
    return thing


def page_of(thing: Any) -> str:
    """The address of the page that shows a thing."""
    return PAGES[thing.__tablename__].format(thing)


def pages_of(session: Session, keys: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """The pages of the things and people with these tables and ids that are not deleted."""
    found, ids = {}, defaultdict[str, set[int]](set)
    for kind, thing_id in keys:
        ids[kind].add(thing_id)
    for kind in ids.keys() & KINDS.keys():
        table: Any = KINDS[kind]
        for thing in session.exec(select(table).where(col(table.id).in_(ids[kind]))):
            if getattr(thing, "deleted_at", None) is None:
                found[kind, int(thing.id)] = page_of(thing)
    people = str(User.__tablename__)
    return found | {(people, key): "/people" for key in ids[people]}


def person_named(session: Session, name: str, field: str = "name") -> User:
    """The person with this name. Raises InvalidInput for the field."""
    user = find_user(session, name)
    if user is None:
        raise invalid_field(field, "There is no person with this name.")
    return user


def people_to_share_with(session: Session, thing: Any) -> list[str]:
    """The names of those who can log in and with whom the thing is not shared yet."""
    known = {user.key for user, _ in shares_of(session, thing)} | {thing.owner_id}
    query = select(User).where(col(User.disabled_at).is_(None), col(User.id).not_in(known))
    return [user.name for user in session.exec(query.order_by(col(User.name_key)))]


def standing(session: Session, thing: Any) -> Standing | None:
    """Who sees a thing, for the person of this session; None without accounts."""
    principal = current_principal()
    if principal is None:
        return None
    owner = session.get(User, thing.owner_id)
    owns = may_own(principal, thing)
    return Standing(
        kind=thing.__tablename__,
        thing_id=thing.id,
        noun=noun_of(thing),
        page=page_of(thing),
        visibility=Visibility(thing.visibility),
        owner=owner.name if owner else "",
        is_mine=thing.owner_id == principal.user_id,
        may_edit=may_edit(session, principal, thing),
        may_own=owns,
        shares=shares_of(session, thing) if owns else [],
        sources=[_title(session, one) for one in _all_sources(session, thing)] if owns else [],
    )


def shares_of(session: Session, thing: Any) -> list[tuple[User, bool]]:
    """The people that a thing is shared with, by name, and whether they may edit it."""
    query = select(User, Share.may_edit).join(Share, col(Share.user_id) == User.id)
    mine = query.where(Share.kind == thing.__tablename__, Share.thing_id == thing.id)
    return list(session.exec(mine.order_by(col(User.name_key))))


def set_visibility(session: Session, thing: Any, visibility: Visibility) -> None:
    """Change who sees a thing, and what was drawn to judge it.

    Raises Forbidden if the person is not its owner, or may not publish a private source of it.
    """
    principal = _require_owner(session, thing)
    if visibility is not Visibility.PRIVATE:
        for source in _all_sources(session, thing):
            if not may_own(principal, source):
                owner = get_user(session, source.owner_id)
                raise Forbidden(
                    f"This was made from a private {noun_of(source)} of {owner.name}, who alone "
                    "may publish what is made from it."
                )
    for one in _with_dependents(session, thing):
        one.visibility = visibility.value
    _record(session, thing, "visibility", visibility=visibility.value)


def share(session: Session, thing: Any, user: User, *, edits: bool = False) -> None:
    """Let a person see a thing, and change it if `edits`. Raises Forbidden or Conflict."""
    _require_owner(session, thing)
    if user.key == thing.owner_id:
        raise Conflict(f"This belongs to {user.name} already.")
    if user.disabled_at is not None:
        raise Conflict(f"{user.name} is disabled.")
    if edits and user.role == Role.VIEWER:
        raise Conflict(f"{user.name} is a viewer, who changes nothing.")
    for chunk in in_chunks(_keys(session, thing)):
        values = {"user_id": user.key, "may_edit": edits}
        rows = [{"kind": kind, "thing_id": key} | values for kind, key in chunk]
        upsert(session, Share, rows, {"may_edit": edits})
    _record(session, thing, "shared", user=user.key, edits=edits)


def unshare(session: Session, thing: Any, user: User) -> None:
    """Take back a share; nothing happens if there is none. Raises Forbidden."""
    _require_owner(session, thing)
    for chunk in in_chunks(_keys(session, thing)):
        query = sa.delete(Share).where(_are_shares(chunk, user))
        session.exec(query, execution_options=UNSYNCHRONIZED)
    _record(session, thing, "unshared", user=user.key)


def set_shares(session: Session, thing: Any, wanted: dict[int, bool]) -> None:
    """Share with these people alone, by their ids; True: they may edit. Raises as `share`."""
    before = {user.key: edits for user, edits in shares_of(session, thing)}
    for user_id in before.keys() - wanted.keys():
        unshare(session, thing, get_user(session, user_id))
    for user_id, edits in wanted.items():
        if before.get(user_id) is not edits:
            share(session, thing, get_user(session, user_id), edits=edits)
    session.flush()


def is_uniform(session: Session, thing: Any, user: User | None = None) -> bool:
    """True if what goes along with a thing has its visibility; with `user`, is shared as it is.

    Then one value undoes a change of them all.
    """
    if user is None:
        return len({one.visibility for one in _with_dependents(session, thing)}) == 1
    keys = _keys(session, thing)
    found: list[bool] = []
    for chunk in in_chunks(keys):
        found += session.exec(select(Share.may_edit).where(_are_shares(chunk, user)))
    return len(found) in (0, len(keys)) and len(set(found)) < 2


def _are_shares(keys: Sequence[tuple[str, int]], user: User) -> sa.ColumnElement[bool]:
    """Condition for the shares of these things with a person."""
    are_named = sa.tuple_(col(Share.kind), col(Share.thing_id)).in_(keys)
    return are_named & (col(Share.user_id) == user.key)


def _require_owner(session: Session, thing: Any) -> Principal:
    principal = current_principal()
    if principal is None:
        raise Conflict("Without accounts everything is shared by all who use this server.")
    require_right(session, principal, thing, own=True)
    return principal


def _record(session: Session, thing: Any, kind: str, **data: Any) -> None:
    session.add(Event(subject=thing.__tablename__, subject_id=thing.id, kind=kind, data=data))


def _title(session: Session, thing: Any) -> str:
    """The name of a thing in words."""
    name = getattr(thing, "name", None) or getattr(thing, "title", None)
    return f"{noun_of(thing)} “{name}”" if name else f"{noun_of(thing)} {thing.id}"


def _all_sources(session: Session, thing: Any) -> list[Any]:
    """The private things that a thing was made from, directly or not, without its dependents."""
    with everything(session), deleted_too(session):
        own = {(one.__tablename__, one.id) for one in _with_dependents(session, thing)}
        found: dict[tuple[str, int], Any] = {}
        waiting = list(_with_dependents(session, thing))
        while waiting:
            row = waiting.pop()
            for source in _direct_sources(session, row):
                key = (source.__tablename__, source.id)
                if key not in found and key not in own:
                    found[key] = source
                    waiting.append(source)
        return list(found.values())


def _direct_sources(session: Session, thing: Any) -> Iterator[Any]:
    yield from private_sources(session, thing)
    for part, column in PARTS.get(type(thing), ()):
        of_thing = select(part).where(getattr(part, column) == thing.id)
        for row in session.exec(of_thing):
            yield from private_sources(session, row)


def _with_dependents(session: Session, thing: Any) -> list[Any]:
    """The thing, and what its owner has of it: runs of a sweep, grids, the images of a grid."""
    with everything(session), deleted_too(session):
        found, waiting = [], [thing]
        while waiting:
            one = waiting.pop()
            found.append(one)
            waiting += (row for row in _dependents(session, one) if row.owner_id == thing.owner_id)
        return found


def _keys(session: Session, thing: Any) -> set[tuple[str, int]]:
    return {(one.__tablename__, one.id) for one in _with_dependents(session, thing)}


def _dependents(session: Session, thing: Any) -> list[Any]:
    match thing:
        case Grid():
            cells = sa.select(col(GridCell.render_id)).where(col(GridCell.grid_id) == thing.id)
            return list(session.exec(select(Render).where(col(Render.id).in_(cells))))
        case BlindTest():
            return list(session.exec(select(Grid).where(Grid.blind_test_id == thing.id)))
        case Sweep():
            runs = session.exec(select(Run).where(Run.sweep_id == thing.id))
            return [*runs, *_grids_of(session, Sweep, [thing.key])]
        case Run():
            return _grids_of(session, Run, [thing.key])
        case Adapter():
            versions = session.exec(
                select(AdapterVersion.id).where(AdapterVersion.adapter_id == thing.id)
            )
            return _grids_of(session, AdapterVersion, [key or 0 for key in versions])
    return []


def _grids_of(session: Session, table: type[Any], subjects: list[int]) -> list[Any]:
    kinds = EVALUATED[table]
    grid_id = col(IoJob.args)["grid_id"].as_integer()
    drawn = sa.select(grid_id).where(
        col(IoJob.kind).in_(kinds), col(IoJob.subject_id).in_(subjects)
    )
    return list(session.exec(select(Grid).where(col(Grid.id).in_(drawn))))
