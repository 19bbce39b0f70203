"""People with accounts: add, find, rename, change role, disable. The last administrator stays."""

from __future__ import annotations

import unicodedata

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from app.registry.access import service as sessions
from app.registry.actor import FIRST_USER, Principal, Role, Visibility
from app.registry.db import utcnow
from app.registry.errors import Conflict, NotFound, invalid_field
from app.registry.tables.jobs import Event
from app.registry.tables.people import MAX_USER_NAME, User
from app.registry.tables.rows import deleted_too

NAMES = select(User.id, User.name)  # made once, because every page with owners needs it


def name_key(name: str) -> str:
    """The name as it is compared: Unicode forms and case make no other name."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def read_name(name: str) -> str:
    """The name as it is stored. Raises InvalidInput with a sentence for the field `name`."""
    found = unicodedata.normalize("NFC", name).strip()
    if not found or len(found) > MAX_USER_NAME:
        raise invalid_field("name", f"Enter a name of 1 to {MAX_USER_NAME} characters.")
    if not found.isprintable():
        raise invalid_field("name", "The name contains invisible characters. Remove them.")
    return found


def add_user(session: Session, name: str, role: Role) -> User:
    """A new person without a password; the first one has to be an administrator.

    Raises InvalidInput, or Conflict if somebody has this name.
    """
    found = read_name(name)
    is_first = session.exec(select(User.id).limit(1)).first() is None
    if is_first and role is not Role.ADMIN:
        raise Conflict("The first person has to be an administrator: they get what is here.")
    if (other := find_user(session, found)) is not None:
        raise Conflict(f"There is a person with the name “{other.name}” already.")
    user = User(
        id=FIRST_USER if is_first else None, name=found, name_key=name_key(found), role=role
    )
    session.add(user)
    _take_name(session, found)
    if is_first and session.get_bind().dialect.name == "postgresql":  # its sequence gave no number
        sequence = sa.func.pg_get_serial_sequence(User.__tablename__, "id")
        session.exec(select(sa.func.setval(sequence, FIRST_USER)))
    record(session, user, "invited", role=role)
    return user


def find_user(session: Session, name: str) -> User | None:
    """The person with this name, whatever its case and Unicode form."""
    return session.exec(select(User).where(User.name_key == name_key(name.strip()))).first()


def get_user(session: Session, user_id: int) -> User:
    """Look up a person. Raises NotFound."""
    user = session.get(User, user_id)
    if user is None:
        raise NotFound("There is no such person.")
    return user


def list_users(session: Session) -> list[User]:
    """All people, also disabled ones, by name."""
    return list(session.exec(select(User).order_by(col(User.name_key))))


def names(session: Session) -> dict[int, str]:
    """The names of all people, by their ids."""
    with deleted_too(session):  # so that the statement is taken as it is
        return {key or 0: name for key, name in session.exec(NAMES)}


def has_people(session: Session) -> bool:
    """True once somebody was invited."""
    return session.exec(select(User.id).limit(1)).first() is not None


def require_accounts(session: Session, *, accounts: bool) -> None:
    """Raise Conflict if there are people and accounts are off: all would be open to everybody."""
    if not accounts and has_people(session):
        raise Conflict(
            "People have accounts here, but BRUSHWORK_ACCOUNTS is off, so everybody would see what "
            "is private. Set BRUSHWORK_ACCOUNTS=on, or run `brushwork users leave`, which deletes "
            "the accounts and makes everything one person's."
        )


def record(session: Session, user: User, kind: str, **data: str) -> None:
    """Append an event to a person."""
    subject = str(User.__tablename__)
    session.add(Event(subject=subject, subject_id=user.key, kind=kind, data=data))


def principal_of(user: User, *, makes: Visibility, address: str = "") -> Principal:
    """The rights of a person; `makes`: the visibility of new things if they chose none."""
    own = Visibility(user.makes) if user.makes else makes
    return Principal(user.key, Role(user.role), user.name, own, address)


def set_role(session: Session, user: User, role: Role) -> None:
    """Change what a person may do, from their next request on. Raises Conflict."""
    if role is not Role.ADMIN:
        _require_other_admin(session, user)
    user.role = role
    record(session, user, "role", role=role)


def rename(session: Session, user: User, name: str) -> None:
    """Change a name. Raises InvalidInput, or Conflict if somebody else has it."""
    found = read_name(name)
    other = find_user(session, found)
    if other is not None and other.key != user.key:
        raise Conflict(f"There is a person with the name “{other.name}” already.")
    user.name, user.name_key = found, name_key(found)
    _take_name(session, found)
    record(session, user, "renamed")


def _take_name(session: Session, name: str) -> None:
    """Write a person. Raises Conflict if another request just took the name."""
    try:
        session.flush()
    except IntegrityError as error:
        raise Conflict(f"There is a person with the name “{name}” already.") from error


def disable(session: Session, user: User) -> None:
    """End all that a person may do, and their sessions. Raises Conflict.

    What runs for them ends as usual.
    """
    _require_other_admin(session, user)
    user.disabled_at = utcnow()
    sessions.end_other_sessions(session, None, user_id=user.key)
    record(session, user, "disabled")


def enable(session: Session, user: User) -> None:
    """Let a disabled person log in again."""
    user.disabled_at = None
    record(session, user, "enabled")


def _require_other_admin(session: Session, user: User) -> None:
    """Raise Conflict if nobody else is an administrator who can log in.

    Their rows and that of the person are locked, so that two cannot demote each other at once; in
    the order of their ids, so that none waits for another who waits for them.
    """
    admins = sa.and_(col(User.role) == Role.ADMIN, col(User.disabled_at).is_(None))
    rows = select(User).where(sa.or_(admins, col(User.id) == user.key)).order_by(col(User.id))
    locked = session.exec(rows.with_for_update().execution_options(populate_existing=True))
    others = [one for one in locked if one.key != user.key]
    if user.role == Role.ADMIN and not any(one.password_hash for one in others):
        raise Conflict(
            f"{user.name} is the last administrator. Make somebody else one first, who has chosen "
            "a password."
        )


def seen(session: Session, user_id: int) -> None:
    """Write down that a person uses the server now."""
    used = sa.update(User).where(col(User.id) == user_id)
    session.connection().execute(used.values(seen_at=utcnow()))
