"""Who sees and changes what: owners, visibility, and the conditions that sessions add.

With accounts a session has a principal. Unless it is an administrator, every ORM statement of the
session finds only what they may see (`do_orm_execute`), and a flush that changes what they may not
change is refused. Statements of `session.connection()` are not limited; `tests/app/test_queries.py`
knows who may use them. Without a principal nothing is added.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, with_loader_criteria
from sqlalchemy.orm.attributes import set_committed_value
from sqlmodel import Field, Session, SQLModel, select

from app.registry.actor import Principal, Visibility, made_visibility, maker_id
from app.registry.db import PRINCIPAL, in_chunks, utcnow
from app.registry.errors import Forbidden
from app.registry.slugs import private_slug
from app.registry.tables.people import Share, User
from app.registry.tables.rows import deleted_too, with_info

EVERYTHING, ALL_PARTS = "everything", "all parts"  # keys in `Session.info`
LEAVES = {"column", "bindparam"}  # parts of statements without a table
CHECK = "visibility IN ({})".format(", ".join(f"'{one}'" for one in Visibility))
Condition = sa.ColumnElement[bool]
RowT = TypeVar("RowT", bound=SQLModel)


class Owned(SQLModel):
    """Columns of things that belong to a person; number 1 owns what was made without accounts."""

    owner_id: int = Field(
        default_factory=maker_id, index=True, sa_column_kwargs={"server_default": "1"}
    )
    visibility: str = Field(
        default_factory=made_visibility,
        max_length=12,
        sa_column_kwargs={"server_default": Visibility.STUDIO.value},
    )


_things: dict[str, type[Any]] = {}  # tables of things, by name
_parents: dict[str, list[tuple[str, str]]] = {}  # (column, table of the parent) of other tables
_followed: dict[str, tuple[str, str]] = {}  # of a thing that another one shows, if it is set
_subjects: dict[str, str] = {}  # table of the subject of io jobs, by kind
_free_inserts: set[str] = set()  # children that anybody adds to a thing that they see
_changed_with: dict[str, tuple[str, str]] = {}  # of a part that is changed with another thing
_user_id: ContextVar[int] = ContextVar("user_id", default=0)  # of the statement that starts
NAMES = {
    "adapter_id": "adapter",
    "adapter_version_id": "adapter_version",
    "after_render_id": "render",
    "base_model_id": "base_model",
    "before_render_id": "render",
    "blind_test_id": "blind_test",
    "control_grid_id": "grid",
    "dataset_id": "dataset",
    "dataset_ids": "dataset",
    "dataset_version_id": "dataset_version",
    "grid_id": "grid",
    "image_id": "image",
    "other_id": "adapter_version",
    "parent_id": "run",
    "regularization_version_id": "dataset_version",
    "render_id": "render",
    "run_id": "run",
    "run_ids": "run",
    "second_render_id": "render",
    "sweep_id": "sweep",
    "test_id": "blind_test",
    "tuned_id": "base_model",
    "twin_id": "render",
    "version_id": "adapter_version",
}
"""The tables whose rows are named by columns and JSON keys of these names."""


def register_things(*tables: type[Any]) -> None:
    """Limit these tables, which are `Owned`."""
    _things.update((table.__tablename__, table) for table in tables)


def register_parts(
    parents: dict[type[Any], dict[str, type[Any]]],
    *,
    added_by_all: tuple[type[Any], ...] = (),
    changed_with: dict[type[Any], tuple[str, type[Any]]] | None = None,
) -> None:
    """Limit rows to those whose parent, by one of these columns, may be seen.

    `added_by_all`: tables into which whoever sees the parent may insert rows. `changed_with`: parts
    that are changed by whoever may change this other row.
    """
    for table, columns in parents.items():
        _parents[table.__tablename__] = [(key, one.__tablename__) for key, one in columns.items()]
    _free_inserts.update(table.__tablename__ for table in added_by_all)
    for part, (key, other) in (changed_with or {}).items():
        _changed_with[part.__tablename__] = (key, other.__tablename__)


def follow(table: type[Any], column: str, other: type[Any]) -> None:
    """A thing with this column set is as visible as the other thing that it names."""
    _followed[table.__tablename__] = (column, other.__tablename__)


def register_subjects(kinds: dict[str, type[Any]]) -> None:
    """The tables of the subjects of io jobs, by their kinds."""
    _subjects.update((kind, table.__tablename__) for kind, table in kinds.items())


def everything(session: Session) -> AbstractContextManager[None]:
    """Within the block the statements of a session find and change all rows."""
    return with_info(session, EVERYTHING, True)


def all_parts(session: Session) -> AbstractContextManager[None]:
    """Within the block the statements of a session find all parts of the things that it sees.

    For parts of things that were read before, or that the same statement limits, and of which
    nothing else may be hidden.
    """
    return with_info(session, ALL_PARTS, True)


def limited_to(session: Session, principal: Principal) -> AbstractContextManager[None]:
    """Within the block the statements of a session find only what this person may see."""
    return with_info(session, PRINCIPAL, principal)


def principal_of(session: Session) -> Principal | None:
    """The person whose rights limit this session; None: nobody, or an administrator."""
    principal: Principal | None = session.info.get(PRINCIPAL)
    if principal is None or not principal.is_limited or session.info.get(EVERYTHING):
        return None
    return principal


# What may be seen


def _table(name: str) -> sa.Table:
    return SQLModel.metadata.tables[name]


def _is_shared(name: str, row: Any) -> Condition:
    share = _table(Share.__tablename__).alias()
    shared = sa.select(share.c.thing_id).where(share.c.kind == name, share.c.user_id == _user())
    found: Condition = row.id.in_(shared)
    return found


def _exists(name: str, key: Any, *, alone: bool = False) -> Condition:
    """Condition that a person sees the row with this id; `alone`: it is part of no OR.

    PostgreSQL makes a join of EXISTS, but within OR it plans it, and each within, in two ways.
    """
    parent = _table(name).alias()
    found = (parent.c.id == key) & _is_visible(name, parent.c)
    if alone:
        return sa.exists().where(found).correlate_except(parent)
    counted = sa.select(sa.func.count()).select_from(parent).where(found)
    return counted.correlate_except(parent).scalar_subquery() > 0


def _is_visible(name: str, row: Any) -> Condition:
    """Condition that a person sees a row: of a mapped class, or of an alias of a table."""
    if name == "io_job":
        return _sees_job(row)
    if name not in _things:
        parents = _parents[name]
        alone = len(parents) == 1
        return sa.or_(*(_exists(table, getattr(row, key), alone=alone) for key, table in parents))
    seen = sa.or_(
        row.visibility != Visibility.PRIVATE,
        row.owner_id == _user(),
        _is_shared(name, row),
    )
    if name in _followed:
        key, other = _followed[name]
        named = getattr(row, key)
        # both conditions, so that the other table is read for those alone that have it
        return sa.or_(named.is_(None) & seen, named.is_not(None) & _exists(other, named))
    return seen


def _sees_job(row: Any) -> Condition:
    """A job is seen by who ordered it and, unless it names other private things, by its subject."""
    kinds: dict[str, list[str]] = {}
    for kind, table in _subjects.items():
        kinds.setdefault(table, []).append(kind)
    by_subject = (
        row.kind.in_(of_table) & _exists(table, row.subject_id)
        for table, of_table in sorted(kinds.items())
    )
    return sa.or_(
        row.owner_id == _user(), (row.visibility != Visibility.PRIVATE) & sa.or_(*by_subject)
    )


def sees(session: Session, table: type[Any], key: Any) -> list[Condition]:
    """Conditions that the person of this session sees the row with this id; none: they see all."""
    if principal_of(session) is None:
        return []
    return [_sees(table.__tablename__, key)]


@lru_cache(maxsize=20)
def _sees(name: str, key: Any) -> Condition:
    return _exists(name, key, alone=True)


def belongs_to(name: str, user_id: int) -> Condition:
    """Condition on the rows of a table of things or their parts: they are this person's."""
    row = _table(name).c
    if name in _things:
        return row.owner_id == user_id
    return sa.or_(
        *(
            row[key].in_(sa.select(_table(parent).c.id).where(belongs_to(parent, user_id)))
            for key, parent in _parents[name]
        )
    )


def is_limited(name: str) -> bool:
    """True for a table of things or of their parts."""
    return name in _things or name in _parents


def _user() -> sa.BindParameter[int]:
    """The person of the session, read when the statement is executed: all share its SQL."""
    return sa.bindparam("principal", callable_=_user_id.get, type_=sa.Integer(), unique=True)


def _may_see(entity: Any) -> Condition:
    return _is_visible(entity.__tablename__, entity)


@lru_cache(maxsize=100)
def _criterion(name: str) -> Any:
    return with_loader_criteria(
        class_of(name), _may_see, include_aliases=True, track_closure_variables=False
    )


@lru_cache(maxsize=1)
def _classes() -> dict[str, type[Any]]:
    mappers = SQLModel._sa_registry.mappers
    return {mapper.local_table.name: mapper.class_ for mapper in mappers}  # type: ignore[attr-defined]


def class_of(table: str) -> type[Any]:
    """The mapped class of a table."""
    return _classes()[table]


@event.listens_for(Session, "do_orm_execute")
def _limit(state: ORMExecuteState) -> sa.Result[Any] | None:
    principal = principal_of(state.session)  # type: ignore[arg-type]
    if principal is None:
        return None
    _user_id.set(principal.user_id)
    names, bare, parts = set(), [], [state.statement]
    while parts:  # twice as fast as `visitors.iterate`
        part: Any = parts.pop()
        kind = part.__visit_name__
        if kind == "table":
            names.add(part.name)
        elif kind not in LEAVES:
            parts.extend(part.get_children())
            if kind == "select" and not part._propagate_attrs:
                bare.append(part)
    if state.is_column_load or state.is_relationship_load:
        return None
    if state.session.info.get(ALL_PARTS):
        names &= _things.keys()
    options = [_criterion(name) for name in sorted(names) if is_limited(name)]
    if not options:
        return None
    for part in bare:  # of columns without an entity, and more than one condition: options miss it
        part._set_propagate_attrs(
            {"compile_state_plugin": "orm", "plugin_subject": sa.inspect(Share)}
        )
    state.statement = state.statement.options(*options)
    return state.invoke_statement() if state.is_select and not state.is_orm_statement else None


# What may be changed


def may_own(principal: Principal, row: Any) -> bool:
    """True if the person may delete, share and publish this thing."""
    return not principal.is_limited or row.owner_id == principal.user_id


def is_hidden(principal: Principal | None, thing: Any) -> bool:
    """True for a private thing of somebody else, also if it is shared: its name is not told."""
    is_private = thing.visibility == Visibility.PRIVATE
    return principal is not None and is_private and not may_own(principal, thing)


def may_edit(session: Session, principal: Principal, row: Any) -> bool:
    """True if the person may change this thing: theirs, or one that they were let change."""
    if may_own(principal, row) or row.visibility == Visibility.STUDIO_EDIT:
        return True
    share = session.get(Share, (row.__tablename__, row.id, principal.user_id))
    return share is not None and share.may_edit


def editable(session: Session, table: type[Any]) -> list[Condition]:
    """Conditions that the person of this session may change a thing; none: whatever they see."""
    principal = principal_of(session)
    if principal is None:
        return []
    shared = select(Share.thing_id).where(
        Share.kind == table.__tablename__, Share.user_id == principal.user_id, Share.may_edit
    )
    return [
        (table.owner_id == principal.user_id)
        | (table.visibility == Visibility.STUDIO_EDIT)
        | table.id.in_(shared)
    ]


def require_right(session: Session, principal: Principal, row: Any, *, own: bool = False) -> None:
    """Raise Forbidden, with who may, if the person may not change this thing; `own`: delete it."""
    if may_own(principal, row) if own else may_edit(session, principal, row):
        return
    owner = session.get(User, row.owner_id)
    name = owner.name if owner else "its owner"
    act = "delete or share" if own else "change"
    raise Forbidden(f"Only {name} or an administrator may {act} this {noun_of(row)}.")


def noun_of(row: Any) -> str:
    """The word for a thing, such as “base model”."""
    noun = str(row.__tablename__).replace("_", " ")
    return {"io job": "job", "own preset": "preset"}.get(noun, noun)


def thing_of(session: Session, row: Any) -> Any:
    """The thing that a row belongs to, such as the dataset of an image; None if it has none."""
    if row.__tablename__ in _things:
        return row
    for key, table in _parents.get(row.__tablename__, ()):
        parent = getattr(row, key) and session.get(class_of(table), getattr(row, key))
        if parent:
            return thing_of(session, parent)
    return None


@event.listens_for(Session, "before_flush")
def _check(session: Session, *_: Any) -> None:
    principal: Principal | None = session.info.get(PRINCIPAL)
    if principal is None:
        return
    limited, known = principal_of(session), set(session.identity_map.keys())
    with everything(session), deleted_too(session):
        if limited is not None:
            _refuse_changes(session, limited)
        for row in session.new:
            _keep_private(session, row)
    for key in set(session.identity_map.keys()) - known:  # else a later `get` would find them
        if not session.is_modified(session.identity_map[key]):
            session.expunge(session.identity_map[key])


def _refuse_changes(session: Session, principal: Principal) -> None:
    changed = [row for row in session.dirty if session.is_modified(row)]
    for row in (*changed, *session.deleted, *session.new):
        name = row.__tablename__
        is_new = row in session.new
        if not is_limited(name) or (is_new and (name in _things or name in _free_inserts)):
            continue
        key, table = _changed_with.get(name, ("", ""))
        with_row = session.get(class_of(table), getattr(row, key)) if key and not is_new else row
        thing = thing_of(session, with_row)
        if thing is not None:
            require_right(session, principal, thing, own=thing is row and _needs_owner(row))


def _needs_owner(row: Any) -> bool:
    state = sa.inspect(row)
    of_owner = ("owner_id", "visibility", "deleted_at")
    return any(state.attrs[key].history.has_changes() for key in of_owner if key in state.attrs)


# What others made private since something was made of it

PRIVATE_NAME = "private"
SHOWN = ("id", "family", "status", "variant", "resolution", "parameters", "dataset_id")
"""The columns that a stand-in has of a hidden row, where its table has them; no names."""


def source_of(session: Session, table: type[RowT], key: int) -> RowT:
    """The row that something was made from; a stand-in named “private” if it is hidden.

    The stand-in belongs to no session. Of a dataset and its version it looks like one that was
    deleted for good. Raises NoResultFound if there is no such row.
    """
    row = session.get(table, key)
    if row is not None or principal_of(session) is None:
        return row or session.get_one(table, key)
    columns = [column for column in table.__table__.columns if column.key in SHOWN]  # type: ignore[attr-defined]
    with everything(session), deleted_too(session):
        query: Any = sa.select(*columns).where(columns[0] == key)
        found = session.exec(query).one()
    values = {column.key: value for column, value in zip(columns, found, strict=True)}
    names = {column.key for column in table.__table__.columns}  # type: ignore[attr-defined]
    words: dict[str, Any] = {
        "name": PRIVATE_NAME,
        "source": PRIVATE_NAME,
        "slug": "",
        "fingerprint": "",
    }
    words |= {"items": [], "image_count": 1}
    values |= {name: word for name, word in words.items() if name in names}
    if "deleted_at" in names:
        values["deleted_at"] = utcnow()  # so that no page leads to it
    return table(**values)


NAMING = {"render": "adapter", "recipe": "adapter", "adapter_version": "dataset"}
"""The tables with names of sources in a JSON column, and the tables of these sources."""


@lru_cache(maxsize=20)
def _hidden_rows(name: str, columns: tuple[str, ...]) -> sa.Select[Any]:
    row = _table(name).alias()
    is_hidden = (row.c.visibility == Visibility.PRIVATE) & ~_is_visible(name, row.c)
    return sa.select(*(row.c[column] for column in columns)).where(is_hidden)


def hidden_rows(session: Session, table: type[Any], *columns: str) -> sa.Select[Any] | None:
    """Query for the private rows that the person of this session does not see, also deleted ones.

    To be executed next, by itself or within another one. None: they see all.
    """
    principal = principal_of(session)
    if principal is None:
        return None
    _user_id.set(principal.user_id)
    return _hidden_rows(table.__tablename__, columns)


@lru_cache(maxsize=10)
def _hidden_ids(table: str) -> sa.Select[Any]:
    query = _hidden_rows(table, ("id",))
    if table != "dataset":
        return query
    version = _table("dataset_version").c
    return sa.select(version.id).where(version.dataset_id.in_(query))


def hidden_ids(session: Session, table: str) -> set[int]:
    """The ids of the `hidden_rows` of a table, of datasets those of their versions, read once."""
    principal = principal_of(session)
    if principal is None:
        return set()
    key = f"hidden {table} {principal.user_id}"
    if key not in session.info:
        _user_id.set(principal.user_id)
        session.info[key] = set(session.connection().execute(_hidden_ids(table)).scalars())
    found: set[int] = session.info[key]
    return found


def _hide_names(row: Any, context: Any, *_: Any) -> None:
    """Let a row that a person loads name its hidden sources “private”; nothing is written."""
    if principal_of(context.session) is None:
        return
    table = NAMING[row.__tablename__]
    several = row.adapters if table == "adapter" else row.details.get("datasets", [])
    key = "adapter_id" if table == "adapter" else "version"
    named = {one.get(key) for one in several}
    if table == "dataset":
        named.add(row.dataset_version_id)
    named.discard(None)
    hidden = named & hidden_ids(context.session, table) if named else None
    if not hidden:
        return
    unnamed = {"name": PRIVATE_NAME} | ({"slug": ""} if table == "adapter" else {})
    renamed = [one | unnamed if one.get(key) in hidden else one for one in several]
    if table == "adapter":
        set_committed_value(row, "adapters", renamed)
    else:
        details = row.details | {"dataset": PRIVATE_NAME, "datasets": renamed}
        set_committed_value(row, "details", details)


def hide_names(*tables: type[Any]) -> None:
    """Hide names of sources in these tables, which are those of `NAMING`."""
    for table in tables:
        for moment in ("load", "refresh"):  # within which `hidden_ids` may read
            event.listen(table, moment, _hide_names, restore_load_context=True)


# What is made from a private thing


def _keep_private(session: Session, row: Any) -> None:
    """Make the thing of a new row private if something that the row names is."""
    thing = thing_of(session, row)
    if thing is None or thing.visibility == Visibility.PRIVATE:
        return
    if any(source is not thing for source in private_sources(session, row)):
        thing.visibility = Visibility.PRIVATE.value
        if thing in session.new and hasattr(thing, "slug"):
            thing.slug = private_slug(thing.slug)


def private_sources(session: Session, row: Any) -> list[Any]:
    """The private things that a row names in its columns and JSON, each once."""
    found: dict[tuple[str, int], Any] = {}
    for name, keys in _named(row).items():
        for chunk in in_chunks(keys):
            mapped = class_of(name)
            for source in session.exec(select(mapped).where(mapped.id.in_(chunk))):
                thing = thing_of(session, source)
                if thing is not None and thing.visibility == Visibility.PRIVATE:
                    found[thing.__tablename__, thing.id] = thing
    return list(found.values())


def _named(row: Any) -> dict[str, set[int]]:
    """The ids of rows that a row names, by their tables."""
    found: dict[str, set[int]] = {}

    def add(key: str, value: Any) -> None:
        if isinstance(value, dict):
            for inner, one in value.items():
                add(inner, one)
        elif isinstance(value, list | tuple):
            for one in value:
                add(key, one)
        elif isinstance(value, int) and key in NAMES:
            found.setdefault(NAMES[key], set()).add(value)

    for column in row.__table__.columns:
        add(column.name, getattr(row, column.key, None))
    return found


def unseen_thing(session: Session, principal: Principal, job: Any) -> Any:
    """A row that a job names in its columns, JSON or as its subject and a person may not see.

    None if they see all that are there.
    """
    named = _named(job)
    table = _subject_table(job)
    if table is not None and job.subject_id:
        named.setdefault(table, set()).add(job.subject_id)
    for name, keys in named.items():
        mapped = class_of(name)
        for chunk in in_chunks(keys):
            wanted = select(mapped).where(mapped.id.in_(chunk))
            with deleted_too(session):
                there = session.exec(wanted).all()
                with limited_to(session, principal):
                    seen = set(session.exec(select(mapped.id).where(mapped.id.in_(chunk))))
            if hidden := [row for row in there if row.id not in seen]:
                return hidden[0]
    return None


def _subject_table(job: Any) -> str | None:
    return _subjects.get(job.kind) if job.__tablename__ == "io_job" else None


def product_visibility(session: Session, job: Any) -> Visibility:
    """The visibility of what a job makes: private if the job or its subject is."""
    found = Visibility(job.visibility)
    table = _subject_table(job)
    if table is not None and job.subject_id:
        subject = session.get(class_of(table), job.subject_id)
        thing = thing_of(session, subject) if subject is not None else None
        if thing is not None and thing.visibility == Visibility.PRIVATE:
            return Visibility.PRIVATE
    return found
