"""The findings of a dataset as pages show them: each with a link to what puts it right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from app.registry.datasets.checks.findings import Check, Finding, Report, Severity
from app.registry.datasets.checks.service import check_dataset, known_report
from app.registry.datasets.filters import ImageFilter, Show
from app.registry.datasets.service import DatasetSummary
from app.registry.db import Session
from app.registry.tables.datasets import TRIGGER_LENGTH, Dataset

CHECKED_AT_ONCE = 200  # images; a check of more is loaded after the page
SPELLINGS = 20  # of one phrase that are removed at once
CHANGED = "captions-changed from:body delay:2s, images-changed from:body delay:2s"
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


@dataclass(frozen=True)
class ShownFinding:
    """A finding; `anchor` is its place on its page, `links` what may be done: address and words."""

    finding: Finding
    anchor: str
    links: list[tuple[str, str]]


@dataclass(frozen=True)
class ChecksPanel:
    """The findings of a dataset; without a report, they are loaded after the page.

    `open`: those that are not mere advice. `more`: how many are not listed in `findings`.
    """

    dataset: Dataset
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
        return f"/datasets/{self.dataset.slug}/checks"


def checks_panel(session: Session, summary: DatasetSummary, *, now: bool = False) -> ChecksPanel:
    """The panel of a dataset; `now`: with its findings, however long that takes."""
    dataset = summary.dataset
    if now or summary.image_count <= CHECKED_AT_ONCE:
        report: Report | None = check_dataset(session, dataset)
    else:
        report = known_report(session, dataset)
    return make_panel(dataset, report)


def make_panel(dataset: Dataset, report: Report | None, *, listed: int = LISTED) -> ChecksPanel:
    """The panel for a report, with this many findings."""
    found = shown_findings(dataset, report) if report else []
    return ChecksPanel(
        dataset=dataset,
        report=report,
        findings=found[:listed],
        open=[shown for shown in found if shown.finding.level is not Severity.ADVICE],
        more=len(found[listed:]),
    )


def shown_findings(dataset: Dataset, report: Report) -> list[ShownFinding]:
    """All findings with their links."""
    shown = []
    for place, finding in enumerate(report.findings, start=1):
        anchor = f"finding-{place}"
        shown.append(ShownFinding(finding, anchor, _links(dataset, finding, anchor)))
    return shown


def _links(dataset: Dataset, finding: Finding, anchor: str) -> list[tuple[str, str]]:
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
    if finding.check in FILTERS:
        shown = ImageFilter(show=frozenset({FILTERS[finding.check]})).query
        return [(f"{page}?{shown}", "Look")]
    return [(f"{page}/checks#{anchor}", "Look" if finding.image_ids else "Details")]


def _add_address(page: str, word: str) -> str:
    """The form that adds a trigger word to the captions, with its preview."""
    return f"{page}?{urlencode({'edit': 'add_trigger', 'text': word})}"


def _strip_address(dataset: Dataset, fragments: Sequence[str]) -> str:
    """The form that removes these words from all captions, with its preview."""
    longest_first = sorted(fragments[:SPELLINGS], key=len, reverse=True)
    query = urlencode({"edit": "remove_words", "text": ", ".join(longest_first)})
    return f"/datasets/{dataset.slug}?{query}"
