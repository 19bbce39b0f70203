"""Tables of people: accounts, sessions, tokens, shares, device time; and requests with a key."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlmodel import Field, Session, SQLModel, col

from app.registry.actor import MAX_CHARACTERS, Role
from app.registry.db import LIMITS, utcnow
from app.registry.tables.rows import NumberedRow

MAX_USER_NAME = 60
DEVICE_DAYS = timedelta(days=30)  # in which the use of devices counts
MAX_KEY = 255


class User(NumberedRow, table=True):
    """A person with an account; never deleted, so that what they made keeps its owner.

    The first one owns everything that was made without accounts.
    """

    __tablename__ = "user_account"

    name: str = Field(max_length=MAX_USER_NAME)
    name_key: str = Field(max_length=240, unique=True)
    """The name without case and Unicode forms."""
    role: str = Field(default=Role.MEMBER, max_length=8)
    password_hash: str | None = Field(default=None, max_length=200)
    """Argon2id; null until an invitation is used."""
    disabled_at: datetime | None = None
    seen_at: datetime | None = Field(default=None, description="Last use, to about five minutes.")
    makes: str | None = Field(default=None, max_length=12)
    """Visibility of new things; null: the setting."""
    disk_bytes: int | None = Field(default=None, sa_type=sa.BigInteger)
    """Quota; null: the setting, 0: no limit."""
    device_minutes: int | None = Field(default=None, description="Quota in 30 days, the same.")
    waiting_jobs: int | None = Field(default=None, description="Quota, the same.")
    disk_used: int | None = Field(default=None, sa_type=sa.BigInteger)
    """Bytes, when they were last counted."""
    disk_counted_at: datetime | None = None
    created_at: datetime = Field(default_factory=utcnow)


class Invitation(NumberedRow, table=True):
    """A link for a person to choose a password, once; for a reset, too."""

    __tablename__ = "invitation"

    token_sha256: str = Field(max_length=64, unique=True)
    user_id: int = Field(index=True)
    created_at: datetime = Field(default_factory=utcnow)
    expires_at: datetime
    used_at: datetime | None = None


class AccessToken(NumberedRow, table=True):
    """A token of a program that acts as a person, within a scope."""

    __tablename__ = "access_token"

    token_sha256: str = Field(max_length=64, unique=True)
    user_id: int = Field(index=True)
    name: str = Field(max_length=60)
    scope: str = Field(max_length=8, description="read, use, write or admin.")
    created_at: datetime = Field(default_factory=utcnow)
    expires_at: datetime
    last_used_at: datetime | None = Field(default=None, description="To the hour.")


class Share(SQLModel, table=True):
    """A thing that its owner shares with one person, whatever its visibility."""

    __tablename__ = "share"

    kind: str = Field(max_length=20, primary_key=True, description="The table of the thing.")
    thing_id: int = Field(primary_key=True)
    user_id: int = Field(primary_key=True, index=True)
    may_edit: bool = False


class LoginFailure(NumberedRow, table=True):
    """Wrong passwords for a name or from an address, which slow down further tries."""

    __tablename__ = "login_failure"

    subject: str = Field(max_length=80, unique=True, description="Hash of the name, or address.")
    count: float = 0.0
    last_at: datetime = Field(default_factory=utcnow, index=True)


class DeviceUse(NumberedRow, table=True):
    """Seconds of a device that a person's jobs used in an hour; survives the jobs."""

    __tablename__ = "device_use"
    __table_args__ = (sa.UniqueConstraint("user_id", "hour", "queue"),)

    user_id: int = Field(index=True)
    hour: datetime
    queue: str = Field(max_length=16)
    seconds: float = 0.0


def has_device_time(session: Session, owner: Any) -> sa.ColumnElement[bool]:
    """Condition that the owner of a training has device time left; true without accounts."""
    usual = session.info.get(LIMITS)
    if usual is None:
        return sa.true()
    limit = sa.func.coalesce(col(User.device_minutes), usual.device_minutes or 0)
    used = (
        sa.select(sa.func.coalesce(sa.func.sum(DeviceUse.seconds), 0.0))
        .where(col(DeviceUse.user_id) == User.id, col(DeviceUse.hour) > utcnow() - DEVICE_DAYS)
        .scalar_subquery()
    )
    out_of_time = sa.select(col(User.id)).where(limit > 0, used >= 60 * limit)
    condition: sa.ColumnElement[bool] = owner.not_in(out_of_time)
    return condition


class LoginSession(NumberedRow, table=True):
    """A session; the token itself is only in the browser's cookie."""

    __tablename__ = "login_session"

    token_sha256: str = Field(max_length=64, unique=True)
    secret_mark: str = Field(max_length=100)
    """Salted hash of the password it was opened with."""
    user_id: int | None = Field(default=None, description="The person, with accounts.")
    created_at: datetime = Field(default_factory=utcnow)
    last_used_at: datetime = Field(default_factory=utcnow, index=True)
    expires_at: datetime = Field(description="Absolute end, however much it is used.")
    address: str = Field(default="", max_length=64)
    browser: str = Field(default="", max_length=200)


class KeyedRequest(SQLModel, table=True):
    """A request under the key of a caller; `status` is null until it was answered."""

    __tablename__ = "keyed_request"

    caller: str = Field(max_length=MAX_CHARACTERS, primary_key=True)
    key: str = Field(max_length=MAX_KEY, primary_key=True)
    token: str = Field(max_length=32, index=True, description="Random, of who holds the key.")
    expires_at: datetime = Field(index=True, description="From then on, the key is free.")
    fingerprint: str = Field(default="", max_length=64, description="Hash of address and body.")
    status: int | None = None
    headers: dict[str, str] = Field(default_factory=dict, sa_type=sa.JSON)
    body: str = Field(default="", sa_type=sa.Text)
