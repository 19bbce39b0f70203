"""The people of a server, with their newest images, and the links that nobody has used yet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session, col, select

from app.registry.actor import Role
from app.registry.db import utcnow
from app.registry.people import service
from app.registry.tables.people import Invitation, User
from app.registry.tables.renders import Render, RenderImage
from app.registry.wording import aware

IMAGES = 3


@dataclass(frozen=True)
class PersonRow:
    """A person and the newest images that they drew, without drafts."""

    user: User
    images: list[str]


@dataclass(frozen=True)
class OpenLink:
    """A link that was not used yet, and its person."""

    user: User
    expires_at: datetime
    has_expired: bool


def list_people(session: Session) -> list[PersonRow]:
    """All people: those who can log in by name, then the disabled ones."""
    users = sorted(service.list_users(session), key=lambda user: user.disabled_at is not None)
    return [PersonRow(user, _newest_images(session, user.key)) for user in users]


def _newest_images(session: Session, user_id: int) -> list[str]:
    drawn = select(RenderImage.sha256).join(Render, col(Render.id) == RenderImage.render_id)
    mine = drawn.where(Render.owner_id == user_id, RenderImage.index == 0)
    return list(session.exec(mine.order_by(col(RenderImage.id).desc()).limit(IMAGES)))


def open_links(session: Session) -> list[OpenLink]:
    """The links that were not used, the newest first."""
    query = select(Invitation, User).join(User, col(User.id) == Invitation.user_id)
    rows = session.exec(
        query.where(col(Invitation.used_at).is_(None)).order_by(col(Invitation.id).desc())
    )
    now = utcnow()
    return [OpenLink(user, row.expires_at, aware(row.expires_at) <= now) for row, user in rows]


def change(
    session: Session,
    user_id: int,
    *,
    name: str | None = None,
    role: Role | None = None,
    disabled: bool | None = None,
) -> User:
    """Rename, give a role, disable or enable; None: as it is. Raises as those do."""
    user = service.get_user(session, user_id)
    if name is not None and name != user.name:
        service.rename(session, user, name)
    if role is not None and role != user.role:
        service.set_role(session, user, role)
    if disabled is not None and disabled != (user.disabled_at is not None):
        (service.disable if disabled else service.enable)(session, user)
    session.flush()
    return user
