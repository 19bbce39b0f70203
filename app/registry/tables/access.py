"""Login sessions: one row per browser that has logged in, until it logs out or the session ends."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field

from app.registry.db import utcnow
from app.registry.tables.rows import NumberedRow


class LoginSession(NumberedRow, table=True):
    """A session; the token itself is only in the browser's cookie."""

    __tablename__ = "login_session"

    token_sha256: str = Field(max_length=64, unique=True)
    secret_mark: str = Field(
        max_length=100, description="Salted hash of the password it was opened with."
    )
    user_id: int | None = Field(default=None, description="Reserved: there are no users yet.")
    created_at: datetime = Field(default_factory=utcnow)
    last_used_at: datetime = Field(default_factory=utcnow, index=True)
    expires_at: datetime = Field(description="Absolute end, however much it is used.")
    address: str = Field(default="", max_length=64)
    browser: str = Field(default="", max_length=200)
