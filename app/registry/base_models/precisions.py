"""The precision in which images are generated, by base model and machine.

The choice is a row, so that it is made once, and known to the web without asking a worker.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from app.registry.job_kinds.states import Queue
from app.registry.jobs.presence import present_workers
from app.registry.tables.added_models import BaseModel, BasePrecision
from worker.core.words import RenderPrecision


def chosen_precision(session: Session, base: BaseModel, machine: str) -> BasePrecision | None:
    """The choice that a machine made for these files of a base model, if any."""
    return session.exec(_choices(base).where(BasePrecision.machine == machine)).first()


def record_choice(session: Session, choice: BasePrecision) -> None:
    """Store a choice; replaces an older one of the same machine."""
    older = select(BasePrecision).where(
        BasePrecision.base_model_id == choice.base_model_id,
        BasePrecision.machine == choice.machine,
    )
    for row in session.exec(older):
        session.delete(row)
    session.flush()
    session.add(choice)


def expected_precision(session: Session, base: BaseModel) -> RenderPrecision | None:
    """The precision of the next image of a base model; None if it is not known.

    The render workers that are present decide; before any has started, all that ever chose for this
    base model. If they differ or one has not chosen yet, nothing is known before a worker begins.
    """
    choices = present_choices(session, base)
    found = {RenderPrecision(choice.precision) for choice in choices if choice is not None}
    return found.pop() if len(found) == 1 and None not in choices else None


def present_choices(session: Session, base: BaseModel) -> Sequence[BasePrecision | None]:
    """The choices that `expected_precision` looks at; None for a machine that has not chosen."""
    choices = {choice.machine: choice for choice in session.exec(_choices(base))}
    workers = present_workers(session, queue=Queue.RENDER)
    machines = {worker.machine for worker in workers if worker.machine}
    return [choices.get(machine) for machine in sorted(machines or choices)]


def _choices(base: BaseModel) -> SelectOfScalar[BasePrecision]:
    return (
        select(BasePrecision)
        .where(
            BasePrecision.base_model_id == base.key,
            BasePrecision.fingerprint == base.fingerprint,
        )
        .order_by(col(BasePrecision.id))
    )
