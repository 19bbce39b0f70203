"""The findings of a dataset as pages show them: each with a link to what puts it right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Query

from app.registry.base_models.service import find_base_model
from app.registry.datasets.checks.findings import Check, Finding, Report, Severity
from app.registry.datasets.checks.service import check_dataset, known_report
from app.registry.datasets.filters import ImageFilter, Show
from app.registry.datasets.service import DatasetSummary
from app.registry.datasets.training_side import side_of, training_side
from app.registry.db import MAX_ID, Session
from app.registry.tables.datasets import TRIGGER_LENGTH, Dataset

CHECKED_AT_ONCE = 200  # images; a check of more is loaded after the page
SPELLINGS = 20  # of one phrase that are removed at once
CHANGED = "captions-changed from:body delay:300ms, images-changed from:body delay:300ms"
LISTED = 8  # findings in a panel; the page of the checks has all

# filters of the page of a dataset that show the images of a finding
FILTERS = {
    Check.NO_CAPTION: Show.UNCAPTIONED,
    Check.LONG: Show.LONG,
    Check.SAME_CAPTION: Show.SAME_CAPTION,
    Check.SIZE: Show.SMALL,
    Check.SHARPNESS: Show.BLURRY,
    Check.SHAPE: Show.ELONGATED,
    Check.TRANSPARENCY: Show.TRANSPARENT,
}
BY_SIDE = (Check.LONG, Check.SIZE)  # the filters know only what is usually trained with


@dataclass(frozen=True)
class AskedSide:
    """The base model and the size that a dataset is checked for; without one, its usual ones."""

    base: Annotated[str, Query(max_length=300)] = ""
    resolution: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None


@dataclass(frozen=True)
class ShownFinding:
    """A finding; `anchor` is its place on its page, `links` what may be done: address and words."""

    finding: Finding
    anchor: str
    links: list[tuple[str, str]]


@dataclass(frozen=True)
class ChecksPanel:
    """The findings of a dataset; without a report, they are loaded after the page.

    `open`: those that are not mere advice. `more`: how many are not listed in `findings`. `query`:
    of the base model and size that they are for; empty for those that it is usually trained with.
    """

    dataset: Dataset
    query: str
    report: Report | None
    findings: list[ShownFinding]
    open: list[ShownFinding]
    more: int

    @property
    def refresh_on(self) -> str:
        """The events on which the panel is loaded again; "" for none.

        A check of many images takes a second, too long to repeat it with every caption.
        """
        if self.report is None:
            return "load"
        is_quick = self.report.image_count <= CHECKED_AT_ONCE
        return CHANGED if is_quick else ""

    @property
    def address(self) -> str:
        """The page with all findings and their images."""
        return f"/datasets/{self.dataset.slug}/checks{self.query}"


def checks_panel(
    session: Session,
    summary: DatasetSummary,
    asked: AskedSide | None = None,
    *,
    now: bool = False,
    listed: int | None = LISTED,
) -> ChecksPanel:
    """The panel of a dataset with its first findings; `now`: however long the check takes."""
    dataset = summary.dataset
    side = usual = training_side(session, dataset.key)
    query = ""
    if asked and asked.base:
        side = side_of(find_base_model(session, asked.base), asked.resolution)
        if side != usual:
            query = f"?{urlencode({'base': asked.base, 'resolution': side.pixels})}"
    is_quick = now or summary.image_count <= CHECKED_AT_ONCE
    report = (check_dataset if is_quick else known_report)(session, dataset, side)
    found = _shown_findings(dataset, report, query) if report else []
    return ChecksPanel(
        dataset=dataset,
        query=query,
        report=report,
        findings=found[:listed],
        open=[shown for shown in found if shown.finding.level is not Severity.ADVICE],
        more=len(found) - len(found[:listed]),
    )


def _shown_findings(dataset: Dataset, report: Report, query: str) -> list[ShownFinding]:
    """All findings with their links."""
    shown = []
    for place, finding in enumerate(report.findings, start=1):
        anchor = f"finding-{place}"
        shown.append(ShownFinding(finding, anchor, _links(dataset, finding, anchor, query)))
    return shown


def _links(dataset: Dataset, finding: Finding, anchor: str, query: str) -> list[tuple[str, str]]:
    """The addresses that put a finding right, the likeliest first, and what they are called."""
    page = f"/datasets/{dataset.slug}"
    if finding.check is Check.TRIGGER_WORD:
        return [(_add_address(page, dataset.trigger_word or ""), "Add")]
    if finding.fragments:
        strip = _strip_address(dataset, finding.fragments), "Strip"
        is_repeated = finding.check is Check.REPEATED_WORDS and not dataset.trigger_word
        if is_repeated and len(finding.phrase) <= TRIGGER_LENGTH:
            return [(_add_address(page, finding.phrase), "Make it the trigger word"), strip]
        return [strip]
    if finding.check in FILTERS and not (query and finding.check in BY_SIDE):
        shown = ImageFilter(show=frozenset({FILTERS[finding.check]})).query
        return [(f"{page}?{shown}", "Look")]
    return [(f"{page}/checks{query}#{anchor}", "Look" if finding.image_ids else "Details")]


def _add_address(page: str, word: str) -> str:
    """The form that adds a trigger word to the captions, with its preview."""
    return f"{page}?{urlencode({'edit': 'add_trigger', 'text': word})}"


def _strip_address(dataset: Dataset, fragments: Sequence[str]) -> str:
    """The form that removes these words from all captions, with its preview."""
    longest_first = sorted(fragments[:SPELLINGS], key=len, reverse=True)
    query = urlencode({"edit": "remove_words", "text": ", ".join(longest_first)})
    return f"/datasets/{dataset.slug}?{query}"
