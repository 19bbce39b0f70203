"""Which adapters the playground offers to add: the newest, or those that a search finds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlmodel import Session

from app.adapters import service as adapters
from app.adapters.models import Adapter
from app.adapters.service import AdapterPage, Filter
from app.errors import NotFound
from app.playground.forms import read_reference
from app.wording import plural

MAX_WORDS = 200


@dataclass(frozen=True)
class Offer:
    """Adapters to choose from; `is_part` when there are others, `told` says what is shown."""

    words: str
    adapters: list[Adapter]
    is_part: bool
    told: str


def make_offer(session: Session, words: str, *, used: Collection[str]) -> Offer:
    """What these words find, without words the newest; but for those that are used already."""
    words = words.strip()[:MAX_WORDS]
    page = adapters.list_adapters(session, Filter(q=words))
    shown = [item.adapter for item in page.items if item.adapter.slug not in used]
    is_part = bool(words) or len(page.items) < page.total
    return Offer(words, shown, is_part, _told(words, page, shown) if is_part else "")


def _told(words: str, page: AdapterPage, shown: list[Adapter]) -> str:
    if not page.items:
        return f"Nothing here has “{words}” in its name, trigger words, tags or notes."
    if not shown:
        return "What was found is in use already."
    if len(page.items) < page.total:
        newest = f"These are the {len(page.items)} newest"
        return f"{newest}; more letters find fewer." if words else f"{newest}; find any other."
    return f"{plural(len(shown), 'adapter')} found."


def is_exact(session: Session, words: str) -> bool:
    """True when the words are the address of an adapter, maybe with a version: `ink@best`."""
    try:
        adapters.adapter_by_slug(session, read_reference(words).slug)
    except NotFound:
        return False
    return True
