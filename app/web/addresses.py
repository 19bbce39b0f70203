"""Addresses of this server: to go on to after a form or a link, and those of pages of a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlencode, urlsplit

from app.registry.people.invitations import PATH as INVITE_PATH

MAX_ADDRESS = 48_000  # characters of a path with its query; prompts are in it percent-encoded


def own_address(address: str) -> str:
    """The address if it is a path on this server, else the home page."""
    is_own = address.startswith("/") and not address.startswith(("//", "/\\"))
    is_own = is_own and len(address) <= MAX_ADDRESS and address.isprintable()
    return address if is_own else "/"


def logged_path(path: str) -> str:
    """The path of a request as a log may keep it: without the secret of an invitation."""
    return f"{INVITE_PATH}…" if path.startswith(INVITE_PATH) else path


def host_of(address: str) -> str:
    """Host and port of an address; empty without any, and for half an IPv6 address."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""


def page_prefix(address: str) -> str:
    """The address of a list, to which the number of one of its pages is added."""
    return f"{address}{'&' if '?' in address else '?'}page="


@dataclass(frozen=True)
class ListLinks:
    """Addresses of a list with changed filters, of which those that are empty are left out.

    `kept`: the names of those that are no filters and stay when all filters are cleared.
    """

    address: str
    filters: Mapping[str, object]
    kept: tuple[str, ...]
    page: int = 1

    def to(self, **changes: object) -> str:
        """The address with these values changed, at the first page unless it is one of them."""
        values = {**self.filters, **changes}
        query = urlencode({name: value for name, value in values.items() if value}, doseq=True)
        return f"{self.address}?{query}" if query else self.address

    @property
    def here(self) -> str:
        """The address of this page."""
        return self.to(page=self.page if self.page > 1 else None)

    @property
    def pages(self) -> str:
        """The address of a page without its number."""
        return page_prefix(self.to())

    @property
    def cleared(self) -> str:
        """The address without search and filters."""
        return replace(self, filters={name: self.filters[name] for name in self.kept}).to()
