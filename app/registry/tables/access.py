"""Tables of those who call: sessions of browsers, and requests that programs sent with a key."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.registry.actor import MAX_CHARACTERS
from app.registry.db import utcnow
from app.registry.tables.rows import NumberedRow

MAX_KEY = 255


class LoginSession(NumberedRow, table=True):
    """A session; the token itself is only in the browser's cookie."""

    __tablename__ = "login_session"

    token_sha256: str = Field(max_length=64, unique=True)
    secret_mark: str = Field(
        max_length=100, description="Salted hash of the password it was opened with."
    )
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
