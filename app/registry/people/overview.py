"""The people of a server, with their newest images, and the links that nobody has used yet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import ByteSize, Field, TypeAdapter
from sqlmodel import Session, col, select

from app.registry.actor import MAX_BYTES, MAX_MINUTES, MAX_WAITING, Role
from app.registry.api_records import api_record
from app.registry.blobs.disk_quota import disk_use
from app.registry.db import utcnow
from app.registry.errors import Quota, invalid_field
from app.registry.jobs import quotas
from app.registry.people import service
from app.registry.tables.people import Invitation, User
from app.registry.tables.renders import Render, RenderImage
from app.registry.wording import aware, size_text

IMAGES = 3
MOST = {"disk_bytes": MAX_BYTES, "device_minutes": MAX_MINUTES, "waiting_jobs": MAX_WAITING}
"""The columns of quotas, with the largest number of each."""
ASKED = {
    "disk_bytes": "Enter a size such as 50 GB",
    "device_minutes": "Enter hours such as 20",
    "waiting_jobs": "Enter a whole number",
}


@api_record
class QuotaUse:
    """What a person takes of something that can be limited."""

    quota: Quota
    """`waiting`: runs and renders that wait; `device`: minutes of devices in 30 days; `disk`:
    bytes, where they have a limit."""
    used: int = Field(description="What they take now.")
    limit: int | None = Field(description="What they may take; null: as much as there is.")

    @property
    def text(self) -> str:
        """What is used, and the limit, in units that people read."""

        def in_words(number: int) -> str:
            if self.quota is Quota.DEVICE:
                hours = f"{number / 60:,.1f}".removesuffix(".0")
                return f"{number} min" if number < 60 else f"{hours} h"
            return size_text(number) if self.quota is Quota.DISK else f"{number:,}"

        used = in_words(self.used)
        return used if self.limit is None else f"{used} of {in_words(self.limit)}"


@dataclass(frozen=True)
class PersonRow:
    """A person, the newest images that they drew, without drafts, and what they take."""

    user: User
    images: list[str]
    use: list[QuotaUse]


@dataclass(frozen=True)
class OpenLink:
    """A link that was not used yet, and its person."""

    user: User
    expires_at: datetime
    has_expired: bool


def list_people(session: Session) -> list[PersonRow]:
    """All people: those who can log in by name, then the disabled ones."""
    users = sorted(service.list_users(session), key=lambda user: user.disabled_at is not None)
    return [
        PersonRow(user, _newest_images(session, user.key), usage_of(session, user))
        for user in users
    ]


def usage_of(session: Session, user: User) -> list[QuotaUse]:
    """What a person takes of everything that can be limited."""
    limits = quotas.limits_of(session, user)
    seconds = sum(used for _, used in quotas.device_seconds(session, user.key))
    waiting = quotas.waiting_jobs(session, user.key)
    found = [
        QuotaUse(Quota.WAITING, waiting, limits.waiting_jobs),
        QuotaUse(Quota.DEVICE, int(seconds // 60), limits.device_minutes),
    ]
    disk = None if limits.disk_bytes is None else disk_use(session, user.key)
    return found if disk is None else [*found, QuotaUse(Quota.DISK, disk, limits.disk_bytes)]


def read_quota(column: str, text: str) -> int | None:
    """The quota that a person typed, in the unit of its column; None for nothing: the setting.

    Raises InvalidInput.
    """
    if not text.strip():
        return None
    try:
        if column == "disk_bytes":
            value = int(TypeAdapter(ByteSize).validate_python(text))
        elif column == "device_minutes":
            value = max(round(60 * float(text)), math.ceil(float(text)))
        else:
            value = int(text)
    except (ValueError, OverflowError):
        value = -1
    if not 0 <= value <= MOST[column]:
        sentence = f"{ASKED[column]}, 0 for no limit, or nothing for that of the settings."
        raise invalid_field(column, sentence)
    return value


def read_quotas(typed: Mapping[str, str | None]) -> dict[str, int | None]:
    """The quotas that a person typed, by column; those that are None stay. Raises InvalidInput."""
    return {name: read_quota(name, text) for name, text in typed.items() if text is not None}


def quota_text(column: str, value: int | None) -> str:
    """A quota as `read_quota` reads it."""
    if not value or column == "waiting_jobs":
        return "" if value is None else str(value)
    return f"{value / 10**9:.12g} GB" if column == "disk_bytes" else f"{round(value / 60, 2):.12g}"


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
    limits: Mapping[str, int | None] | None = None,
) -> User:
    """Rename, give a role, disable or enable; None: as it is. Raises as those do.

    `limits`: quotas by column, with None for that of the settings.
    """
    user = service.get_user(session, user_id)
    if role is not None and role != user.role:
        service.set_role(session, user, role)
    if disabled is not None and disabled != (user.disabled_at is not None):
        (service.disable if disabled else service.enable)(session, user)
    if name is not None and name != user.name:  # after the locks of administrators
        service.rename(session, user, name)
    for column, value in (limits or {}).items():
        if value != getattr(user, column):
            setattr(user, column, value)
            service.record(session, user, "quota", quota=f"{column} {value}")
    session.flush()
    return user
