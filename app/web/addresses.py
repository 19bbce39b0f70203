"""Addresses of this server: to go on to after a form or a link, and those of pages of a list."""

from __future__ import annotations

from urllib.parse import urlsplit

MAX_ADDRESS = 48_000  # characters of a path with its query; prompts are in it percent-encoded


def own_address(address: str) -> str:
    """The address if it is a path on this server, else the home page."""
    is_own = address.startswith("/") and not address.startswith(("//", "/\\"))
    is_own = is_own and len(address) <= MAX_ADDRESS and address.isprintable()
    return address if is_own else "/"


def host_of(address: str) -> str:
    """Host and port of an address; empty without any, and for half an IPv6 address."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""


def page_prefix(address: str) -> str:
    """The address of a list, to which the number of one of its pages is added."""
    return f"{address}{'&' if '?' in address else '?'}page="
