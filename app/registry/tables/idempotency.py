"""Table of requests that programs sent with a key of their own, with their answers."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Field, SQLModel

from app.registry.actor import MAX_CHARACTERS

MAX_KEY = 255


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
