"""Changes a run: its name and notes, and until its end steps, intervals, and when it ends itself.

Each change of settings is an event of the run: who, when, from, to, and the step from which it
holds. While the run trains, the trainer decides on that step; until then the change waits in the
row of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlmodel import Session, col, select

from app.registry.errors import Conflict, InvalidInput
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service as jobs
from app.registry.jobs.service import Claim
from app.registry.runs import checkpoints, requests
from app.registry.runs.service import STATUS_PHRASES, get_run
from app.registry.runs.settings import setting_label, value_words
from app.registry.tables.jobs import Event
from app.registry.tables.runs import Run
from app.registry.validation import named_reasons, one_line, printable, too_long
from worker.core.training.changes import CHANGEABLE, Change, ChangingConfig
from worker.core.training.config import TrainConfig

CHANGED = "settings_changed"  # kind of event
MAX_NOTES = 4_000


def change_description(
    session: Session, run_id: int, *, name: str | None = None, notes: str | None = None
) -> Run:
    """Change the name or the notes of a run; None leaves them.

    The adapter that it made keeps its name; an adapter that it will make gets the new one. Raises
    NotFound and InvalidInput.
    """
    run = get_run(session, run_id, lock=True)
    name = run.name if name is None else one_line(name)
    notes = run.notes if notes is None else printable(notes.replace("\r\n", "\n")).strip()
    fields: dict[str, str] = {}
    if not name:
        fields["name"] = "A run needs a name."
    elif len(name) > requests.MAX_NAME:
        fields["name"] = too_long(name, requests.MAX_NAME)
    if len(notes) > MAX_NOTES:
        fields["notes"] = too_long(notes, MAX_NOTES)
    if fields:
        raise InvalidInput(named_reasons(fields), fields=fields)
    run.name, run.notes = name, notes
    session.add(run)
    address = checkpoints.address_of(session, run_id)
    if address is not None:
        address.name = name
        session.add(address)
    session.flush()
    return run


def pending_values(run: Run) -> dict[str, int] | None:
    """The values that will hold from the next step on; None: nothing is about to change."""
    asked = run.change_requested if not run.state.is_final else None
    return asked["values"] if asked else None


def wanted_values(run: Run) -> dict[str, int]:
    """The settings that can change, as they were last asked for."""
    asked = pending_values(run) or {}
    config = TrainConfig.model_validate(run.config)
    return {name: asked.get(name, getattr(config, name)) for name in CHANGEABLE}


def require_changeable(run: Run) -> None:
    """Raise Conflict for a run that has ended, is ending, or is part of a sweep."""
    if run.state not in (JobStatus.QUEUED, JobStatus.PAUSED, JobStatus.RUNNING):
        raise Conflict(
            f"This run {STATUS_PHRASES[run.state]}, so its settings stay as they are. Continue "
            "training from one of its checkpoints, with the number of steps that you want."
        )
    if run.sweep_id is not None:
        raise Conflict(
            "This run is part of a sweep, which compares it with others, so its settings stay as "
            "they are."
        )
    if run.stop_requested or run.cancel_requested:
        raise Conflict("This run is about to end, so its settings stay as they are.")


def change_settings(session: Session, run_id: int, values: Mapping[str, object]) -> Run:
    """Change settings of a run that waits, is paused or trains; the same values change nothing.

    Raises NotFound, Conflict if it has ended or is ending, and InvalidInput.
    """
    run = get_run(session, run_id, lock=True)
    require_changeable(run)
    wanted = wanted_values(run)
    config = requests.check_config({**run.config, **wanted, **values})
    least = run.step + (run.started_at is None)  # one that continues another takes a step itself
    if config.steps < least:
        text = f"{run.step:,} steps are done: enter at least {least:,}."
        fields = {"steps": text}
        raise InvalidInput(named_reasons(fields), fields=fields)
    after = {name: int(getattr(config, name)) for name in values}
    after = {name: value for name, value in after.items() if value != wanted[name]}
    if not after:
        return run
    before = {name: wanted[name] for name in after}
    event = jobs.record(session, Run, run_id, CHANGED, before=before, after=after, step=None)
    session.flush()
    asked = {**(pending_values(run) or {}), **after}
    run.change_requested = {"number": event.key, "values": asked}
    if run.state is not JobStatus.RUNNING:
        changes = [Change(**one) for one in run.changes]
        plan = ChangingConfig(TrainConfig.model_validate(run.config), changes)
        _store(session, run, event.key, plan.change(run.step, asked))
    session.add(run)
    return run


def take_change(session: Session, claim: Claim, number: int, change: Change) -> Run:
    """Store that the trainer changed settings, as ordered by the event of this number.

    Raises LostLease if another worker owns the run.
    """
    jobs.require_owner(session, Run, claim)
    run = session.get_one(Run, claim.job_id, populate_existing=True)
    _store(session, run, number, change)
    session.add(run)
    return run


def _store(session: Session, run: Run, number: int, made: Change) -> None:
    """Store a change that was made, also in the events that asked for it, up to this number."""
    if made.after:
        run.config = {**run.config, **made.after}
        run.total_steps = run.config["steps"]
        if run.started_at:  # else it is as if it had been queued like that
            run.changes = [*run.changes, asdict(made)]
    if run.change_requested and run.change_requested["number"] == number:
        run.change_requested = None
    query = select(Event).where(Event.subject == Run.__tablename__, Event.subject_id == run.key)
    for event in session.exec(query.where(Event.kind == CHANGED, col(Event.id) <= number)):
        if event.data["step"] is None:
            after = dict(event.data["after"])
            if "steps" in after:  # it cannot end before the steps that it has done
                after["steps"] = max(after["steps"], made.step)
            event.data = {**event.data, "after": after, "step": made.step}
            session.add(event)


def change_text(run: Run, data: Mapping[str, Any]) -> str:
    """The sentence of an event of a change."""
    parts = [
        f"{setting_label(name)}: {value_words(name, data['before'][name])} → "
        f"{value_words(name, value)}"
        for name, value in data.get("after", {}).items()
    ]
    step = data.get("step")
    if step is not None:
        since = f"from step {step:,} on" if step else "from the start"
    else:
        since = "from the next step on" if run.state.is_active else "too late: it had ended"
    return f"{', '.join(parts)} ({since})"


def changes_words(run: Run) -> str:
    """All changes of a run as lines; empty if there are none."""
    return "\n".join(change_text(run, one) for one in run.changes)
