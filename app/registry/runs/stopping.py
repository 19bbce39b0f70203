"""The result of a training: whether it becomes the version in use, or only a version.

Whoever stops a training can choose, and the choice is stored with the run. Without one the worker
follows the proposal when it stores the result.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlmodel import Session

from app.registry.adapters import service as adapters
from app.registry.adapters.versions.create_version import adapter_of_parent
from app.registry.jobs import service as jobs
from app.registry.runs.listing import newest_samples
from app.registry.runs.service import request_run_action, run_samples
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.runs import NOTICE, Run
from app.registry.wording import plural

CHOSEN = "As chosen when the run was stopped."
UNDO = "undo"  # key of an event: the version to put into use instead


@dataclass(frozen=True)
class StopProposal:
    """The effect that the result of a run would have if it stopped now.

    `adapter`: it becomes a version of this one; None: of a new one. `used`: the version in use,
    which it may replace. `reason`: why it should not, as a sentence; empty: it should.
    """

    adapter: Adapter | None = None
    used: AdapterVersion | None = None
    reason: str = ""

    @property
    def make_latest(self) -> bool:
        """True if the result should become the version in use."""
        return not self.reason


def propose(session: Session, run: Run, *, steps: int | None = None) -> StopProposal:
    """The proposal for a result of so many steps; None: of those that the run has reached."""
    key = adapter_of_parent(session, run)
    if key is None:
        return StopProposal()
    adapter = adapters.get_adapter(session, key)
    used = adapters.get_version(session, adapter)
    return StopProposal(adapter, used, _reason_against(session, run, used, steps or run.step))


def _reason_against(session: Session, run: Run, used: AdapterVersion, steps: int) -> str:
    if used.steps and 2 * steps < used.steps:
        which = f"version {used.version}, which is in use, has {used.steps:,}"
        return f"It has {plural(steps, 'step')}, and {which}."
    newest = newest_samples(session, [run.key]).get(run.key, [])
    base = {row.prompt_index: row.sha256 for row in run_samples(session, run.key) if row.step == 0}
    if newest and all(base.get(row.prompt_index) == row.sha256 for row in newest):
        return "Its samples equal those of the base model." if newest[0].step else ""
    return ""


def request_stop(session: Session, run_id: int, *, make_latest: bool | None = None) -> Run:
    """Ask a running training to stop at the next step and keep its result.

    `make_latest`: whether the result becomes the version in use; None: as proposed at that step.
    Raises NotFound, and Conflict if the run is not running.
    """
    run = request_run_action(session, run_id, "stop")
    run.make_latest = make_latest
    return run


def result_choice(session: Session, run: Run, *, steps: int | None = None) -> StopProposal:
    """What was chosen for the result of a run when it was stopped, else the proposal."""
    proposal = propose(session, run, steps=steps)
    if run.make_latest is None:
        return proposal
    return StopProposal(proposal.adapter, proposal.used, "" if run.make_latest else CHOSEN)


def record_choice(
    session: Session, run: Run, choice: StopProposal, version: AdapterVersion
) -> None:
    """Say in the events of the run which version is in use now, and which one to use instead."""
    if choice.used is None or choice.adapter is None:
        return
    made, used = f"Version {version.version} of “{choice.adapter.name}”", choice.used.version
    if choice.make_latest:
        text, undo = f"{made} is in use now, in place of version {used}.", used
    else:
        text = f"{made} was made; version {used} stays in use. {choice.reason}"
        undo = version.version
    jobs.record(session, Run, run.key, NOTICE, **{"text": text, UNDO: undo})
