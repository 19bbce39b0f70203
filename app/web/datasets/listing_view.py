"""The images that a page of a dataset shows: filter chips, words, order, and the pages around."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from urllib.parse import urlencode

from app.registry.datasets.filters import ALL_IMAGES, ImageFilter, Show, Sort
from app.registry.datasets.listing.image_search import count_filters, counted_before, matching_ids
from app.registry.datasets.listing.pages import ImagePage, read_page
from app.registry.datasets.training_side import TrainingSide, training_side
from app.registry.db import Session
from app.registry.tables.datasets import Dataset, Image

PAGES_AT_ONCE = 4  # that scrolling adds to one page: 192 images


@dataclass(frozen=True)
class ShownImages:
    """Which images a request asks for; `problems`: a sentence for each parameter left out.

    `after`: those that follow this image. `first`: the number of the first page that the browser
    has already; the page asked for comes after it. `with_statistics`: their panel is open.
    """

    wanted: ImageFilter = ALL_IMAGES
    problems: list[str] = field(default_factory=list)
    page: int = 1
    after: int | None = None
    first: int | None = None
    with_statistics: bool = False


ALL_SHOWN = ShownImages()


@dataclass(frozen=True)
class Chip:
    """A filter as a link that adds it, or removes it if it is on."""

    kind: Show
    title: str
    count: int | None
    query: str
    is_on: bool


@dataclass(frozen=True)
class FilterBar:
    """The chips, words and orders above the images; without `is_complete`, counts are missing."""

    dataset: Dataset
    wanted: ImageFilter
    total: int
    matching: int
    chips: list[Chip]
    is_complete: bool

    @property
    def orders(self) -> list[Sort]:
        """All orders to choose from."""
        return list(Sort)

    def sorted(self, order: Sort) -> str:
        """The query of the same images in another order."""
        return replace(self.wanted, sort=order).query

    @property
    def all_query(self) -> str:
        """The query of all images in this order."""
        return replace(ALL_IMAGES, sort=self.wanted.sort).query

    @property
    def empty(self) -> str:
        """The text if no image matches."""
        if replace(self.wanted, q="").is_all:
            return f"No caption or file name contains “{self.wanted.q}”."
        if self.wanted.show == {Show.UNCAPTIONED} and self.wanted.query == "show=uncaptioned":
            return "Every image has a caption. Well done."
        return "No image matches all of these filters."

    @property
    def words(self) -> list[tuple[str, str, str]]:
        """For each word of the filter: “with” or “without”, the word, the query without it."""
        pairs = [("with", word) for word in self.wanted.with_words]
        pairs += [("without", word) for word in self.wanted.without_words]
        return [(how, word, self.wanted.word_removed(word).query) for how, word in pairs]


@dataclass(frozen=True)
class Tiles:
    """A page of images, and the queries of the pages around it, "" where there are none.

    `added`: that of the next page as scrolling adds it to this one; "" if it replaces this one.
    """

    page: ImagePage
    earlier: str
    more: str
    added: str

    @property
    def images(self) -> list[Image]:
        """The images, in their order."""
        return self.page.images


def read_tiles(session: Session, dataset: Dataset, shown: ShownImages) -> Tiles:
    """The images that a request asks for."""
    wanted = shown.wanted
    page = read_page(session, dataset, wanted, page=shown.page, after=shown.after)
    if not page.images and shown.first is None:  # a page is never empty if images match
        page = read_page(session, dataset, wanted, page=shown.page)
    number = shown.page if shown.first else page.page
    first = min(shown.first or number, number)
    has_more, is_added = page.last is not None, number + 1 - first < PAGES_AT_ONCE
    more = _page_query(wanted, number + 1, after=page.last) if has_more else ""
    return Tiles(
        page,
        earlier=_page_query(wanted, first - 1) if first > 1 else "",
        more=more,
        added=f"{more}&first={first}" if has_more and is_added else "",
    )


def read_filter_bar(
    session: Session,
    dataset: Dataset,
    wanted: ImageFilter,
    *,
    matching: int | None = None,
    now: bool = False,
) -> FilterBar:
    """The filters with their counts; unless `now`, without those that take long to count.

    `matching`: how many images match, if that is known.
    """
    counts, total = count_filters(session, dataset, now=now)
    if matching is None:
        matching = total if wanted.is_all else len(matching_ids(session, dataset, wanted))
    side = training_side(session, dataset.key)
    is_complete = set(counts) == set(Show)
    before = set() if is_complete else counted_before(session, dataset) - set(counts)
    chips = [
        Chip(
            kind=kind,
            title=_title(kind, side),
            count=counts.get(kind),
            query=wanted.toggled(kind).query,
            is_on=kind in wanted.show,
        )
        for kind in Show
        if counts.get(kind)
        or kind in before  # likely still so, and then no chip comes later
        or kind in wanted.show
        or kind is Show.UNCAPTIONED
    ]
    return FilterBar(dataset, wanted, total, matching, chips, is_complete)


def _page_query(wanted: ImageFilter, page: int, *, after: int | None = None) -> str:
    pairs = [("page", str(page)), *([("after", str(after))] if after else [])]
    return urlencode(wanted.pairs + pairs)


def _title(kind: Show, side: TrainingSide) -> str:
    """The meaning of a filter, where its name does not say it."""
    trained = f"the {side.pixels} px at which “{side.base_name}” trains" if side.base_name else ""
    titles = {
        Show.LONG: "More tokens than the base model reads",
        Show.SAME_CAPTION: "Another image has the same caption",
        Show.NEAR_DUPLICATE: "Almost the same picture as another one",
        Show.SMALL: f"A side is shorter than {trained or f'{side.pixels} px'}",
        Show.BLURRY: "Soft edges, seen at 512 px",
        Show.ELONGATED: "More than 2.5 times as long as wide, or as wide as long",
        Show.SET_ASIDE: "Kept, but not trained on",
        Show.PROVIDER: "A model wrote the caption",
        Show.UNMEASURED: "Sharpness and likeness are measured in the background",
    }
    return titles.get(kind, "")
