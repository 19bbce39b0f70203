"""The text of a browser notification about a run that has ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from app.registry.job_kinds.states import JobStatus
from app.registry.runs.service import STATUS_PHRASES
from app.registry.tables.runs import RUINED, Run
from app.registry.wording import plural

SHOWN_REASON = 200  # characters of an error that a notification repeats


@dataclass(frozen=True)
class EndNotice:
    """One end of one run; browsers remember by `key` which ones they have shown."""

    key: str
    title: str
    text: str
    href: str

    def as_json(self) -> dict[str, str]:
        """The notice as the script of the pages reads it."""
        return asdict(self)


def end_notice(run: Run) -> EndNotice:
    """The notice of a run that has ended: its outcome and where to see it."""
    steps = plural(run.step, "step")
    title = f"“{run.name}” {STATUS_PHRASES[JobStatus(run.status)]}"
    key, href = f"{run.key} {run.finished_at}", f"/runs/{run.key}"
    if run.outcome == RUINED:
        return EndNotice(key, f"{title}, ruined", (run.outcome_reason or "")[:SHOWN_REASON], href)
    text = {
        JobStatus.SUCCEEDED: f"Trained {steps}.",
        JobStatus.FAILED: (run.error or "")[:SHOWN_REASON],
        JobStatus.CANCELED: f"It had trained {steps}.",
    }[JobStatus(run.status)]
    return EndNotice(key, title, text, href)
