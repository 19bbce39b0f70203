"""Addresses that a form or a link brings along, to go on to afterwards."""

from __future__ import annotations

from app.web.security import MAX_ADDRESS


def own_address(address: str) -> str:
    """The address if it is a path on this server, else the home page."""
    is_own = address.startswith("/") and not address.startswith(("//", "/\\"))
    is_own = is_own and len(address) <= MAX_ADDRESS and address.isprintable()
    return address if is_own else "/"
