"""The findings of a dataset as pages show them: each with a link to what puts it right."""

from __future__ import annotations

from dataclasses import dataclass

from app.registry.datasets.checks.findings import Check, Finding, Report
from app.registry.datasets.checks.service import check_dataset, known_report
from app.registry.datasets.models import Dataset
from app.registry.datasets.service import DatasetSummary
from app.registry.db import Session

CHECKED_AT_ONCE = 200  # images; a check of more is loaded after the page
LISTED = 8  # findings in a panel; the page of the checks has all

# filters of the page of a dataset that show the images of a finding
FILTERS = {Check.NO_CAPTION: "uncaptioned"}
LOOK = "Look"


@dataclass(frozen=True)
class ShownFinding:
    """A finding with its link: `action` is what the link does, `anchor` its place on its page."""

    finding: Finding
    anchor: str
    href: str
    action: str


@dataclass(frozen=True)
class ChecksPanel:
    """The findings of a dataset; without a report, they are loaded after the page."""

    dataset: Dataset
    report: Report | None
    findings: list[ShownFinding]
    more: int

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
        more=len(found[listed:]),
    )


def shown_findings(dataset: Dataset, report: Report) -> list[ShownFinding]:
    """All findings with their links."""
    shown = []
    for place, finding in enumerate(report.findings, start=1):
        anchor = f"finding-{place}"
        href, action = _link(dataset, finding, anchor)
        shown.append(ShownFinding(finding, anchor, href, action))
    return shown


def _link(dataset: Dataset, finding: Finding, anchor: str) -> tuple[str, str]:
    page = f"/datasets/{dataset.slug}"
    if finding.check in FILTERS:
        return f"{page}?show={FILTERS[finding.check]}", LOOK
    return f"{page}/checks#{anchor}", LOOK
