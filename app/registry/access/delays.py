"""How long wrong passwords delay further ones, and what counts as one address."""

from __future__ import annotations

import math
from ipaddress import IPv6Address, ip_address, ip_network

from app.registry.errors import AppError
from app.registry.wording import plural

FREE_TRIES = 5
MAX_DELAY_SECONDS = 60.0
FORGET_SECONDS = 600.0  # after this long, one wrong password of an address is forgotten
IPV6_SITE_BITS = 64  # one customer usually has all of these addresses


class TooManyTries(AppError, status=429, title="Too many wrong passwords", code="too_many_tries"):
    """Too many wrong passwords; the message says when to try again."""

    def __init__(self, seconds: float) -> None:
        self.retry_after = max(1, math.ceil(seconds))
        super().__init__(
            "There were too many wrong passwords. Try again in "
            f"{plural(self.retry_after, 'second')}."
        )


def delay_after(wrong: int) -> float:
    """Seconds after this many wrong passwords: none at first, then each time twice as many."""
    if wrong <= FREE_TRIES:
        return 0.0
    doublings = min(wrong - FREE_TRIES, math.ceil(math.log2(MAX_DELAY_SECONDS)))
    return min(2.0**doublings, MAX_DELAY_SECONDS)


def site_of(address: str) -> str:
    """The address that is counted: an IPv6 site as one, IPv4 in IPv6 as IPv4."""
    try:
        found = ip_address(address)
    except ValueError:
        return "".join(char if char.isprintable() else "?" for char in address[:64]) or "unknown"
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ip_network((found.packed, IPV6_SITE_BITS), strict=False))
