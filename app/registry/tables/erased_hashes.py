"""Table of the hashes that were deleted lately."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field

from app.registry.db import AUTOINCREMENT, KEEPS_NO_BLOB, utcnow
from app.registry.tables.rows import NumberedRow


class ErasedHash(NumberedRow, table=True):
    """The hash of a file or caption that was deleted for good; kept for some weeks.

    Whoever stores a row that refers to such a file checks that the file is there (`guard`), and
    train workers delete what they made of it (`latents`).
    """

    __tablename__ = "erased_hash"
    __table_args__ = AUTOINCREMENT

    sha256: str = Field(
        max_length=64,
        index=True,
        sa_column_kwargs={"info": {KEEPS_NO_BLOB: True}},  # it keeps nothing
    )
    at: datetime = Field(default_factory=utcnow, index=True)
