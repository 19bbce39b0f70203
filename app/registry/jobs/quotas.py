"""Quotas of people: what each may take."""

from __future__ import annotations

from sqlmodel import Session

from app.registry.actor import Limits
from app.registry.db import LIMITS
from app.registry.tables.people import User


def limits_of(session: Session, user: User) -> Limits:
    """What a person may take: as was said of them, else by the settings; nothing without accounts.

    In their columns null is the setting, and 0 is no limit.
    """
    usual: Limits | None = session.info.get(LIMITS)
    if usual is None:
        return Limits()
    return Limits(
        _limit(user.disk_bytes, usual.disk_bytes),
        _limit(user.device_minutes, usual.device_minutes),
        _limit(user.waiting_jobs, usual.waiting_jobs),
    )


def _limit(own: int | None, usual: int | None) -> int | None:
    return usual if own is None else own or None
