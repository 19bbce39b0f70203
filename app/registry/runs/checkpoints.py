"""The checkpoints of a run: training states to continue from, and adapters to try and use.

Only the newest states are kept, as they are large. The adapter of a checkpoint is a version, with
the number of its step, of an unlisted adapter that belongs to the run: so it has an address, and
works in the playground, the downloads, the tools and the API as every version does. What a person
saved or keeps is never deleted unasked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.adapters import service as adapters
from app.registry.adapters.resolve import resolve
from app.registry.adapters.service import UsedVersion, use_version
from app.registry.adapters.versions.create_version import (
    SHARED,
    NewVersion,
    adapter_of_parent,
    publish,
)
from app.registry.errors import Conflict, NotFound, invalid_field
from app.registry.job_kinds.kinds import MergeAdaptersArgs
from app.registry.job_kinds.weighted import ResolvedAdapter, WeightedAdapter
from app.registry.jobs import rights
from app.registry.jobs import service as jobs
from app.registry.runs import service
from app.registry.runs.progress import FIXED_LOSS, values_by_step
from app.registry.tables.adapters import Adapter, AdapterVersion, is_in_library
from app.registry.tables.jobs import IoJob
from app.registry.tables.runs import NOTICE, Checkpoint, Run, Sample
from worker.core.lora_files.weights import MAX_MERGE_ADAPTERS
from worker.core.words import MergeMethod

STEPS_NAMED = 20  # in a sentence
STEPS_A_PAGE = 24


@dataclass(frozen=True)
class RunCheckpoint:
    """A checkpoint at a step: its state, its adapter, or both.

    `address`: the unlisted adapter whose version it is. `used_as`: the version that was made of it,
    with its adapter; `is_in_use`: that adapter's `latest` points to it.
    """

    step: int
    state: Checkpoint | None
    address: Adapter | None
    version: AdapterVersion | None
    used_as: tuple[Adapter, AdapterVersion] | None
    is_in_use: bool

    @property
    def kept(self) -> bool:
        """True if a person saved or keeps it."""
        return any(part.kept for part in (self.state, self.version) if part is not None)

    @property
    def created_at(self) -> datetime:
        """When it was saved."""
        part = self.version or self.state
        assert part is not None
        return part.created_at

    @property
    def reference(self) -> str:
        """The playground's name for its adapter, such as `chalk-run-3@150`; empty without one."""
        return f"{self.address.slug}@{self.step}" if self.address and self.version else ""


def address_of(session: Session, run_id: int) -> Adapter | None:
    """The unlisted adapter that holds the checkpoints of a run, if there is one."""
    return session.exec(select(Adapter).where(Adapter.run_id == run_id)).first()


def list_checkpoints(
    session: Session, run_id: int, *, steps: Collection[int] | None = None
) -> list[RunCheckpoint]:
    """The checkpoints of a run, or those at these steps, the newest first."""
    address = address_of(session, run_id)
    states = {row.step: row for row in _states(session, run_id, steps)}
    versions = {row.version: row for row in _versions(session, address, steps)}
    made = _versions_made(session, run_id)
    extended = {adapter.key: adapter for adapter, _ in made}
    in_use = {adapters.get_version(session, adapter).key for adapter in extended.values()}
    found = []
    for step in sorted(states.keys() | versions.keys(), reverse=True):
        version = versions.get(step)
        same = (pair for pair in made if version and pair[1].sha256 == version.sha256)
        used_as = next(same, None)  # the newest version with the weights of this one
        is_in_use = used_as is not None and used_as[1].key in in_use
        row = RunCheckpoint(step, states.get(step), address, version, used_as, is_in_use)
        found.append(row)
    return found


def checkpoint_steps(run_id: int) -> tuple[sa.Select[int], sa.Select[int]]:
    """Queries of the steps of a run whose state, and of those whose adapter is stored."""
    states = sa.select(col(Checkpoint.step)).where(
        col(Checkpoint.run_id) == run_id, col(Checkpoint.deleted_at).is_(None)
    )
    versions = (
        sa.select(col(AdapterVersion.version))
        .join(Adapter, col(Adapter.id) == col(AdapterVersion.adapter_id))
        .where(col(Adapter.run_id) == run_id, col(AdapterVersion.deleted_at).is_(None))
    )
    return states, versions


def newest_steps(
    session: Session, run_id: int, *, limit: int, before: int | None = None
) -> list[int]:
    """The steps of the newest checkpoints of a run; at most `limit`, below `before`."""
    steps = sa.union(*checkpoint_steps(run_id)).subquery()
    (step,) = steps.c
    query = select(step).order_by(step.desc()).limit(limit)
    if before is not None:
        query = query.where(step < before)
    return list(session.exec(query))


def count_checkpoints(session: Session, run_id: int) -> int:
    """Number of checkpoints of a run, with or without adapter."""
    steps = sa.union(*checkpoint_steps(run_id)).subquery()
    return session.exec(select(sa.func.count()).select_from(steps)).one()


def get_checkpoint(session: Session, run_id: int, step: int) -> RunCheckpoint:
    """The checkpoint at a step. Raises NotFound, with the steps that there are."""
    found = list_checkpoints(session, run_id, steps=[step])
    if found:
        return found[0]
    there = newest_steps(session, run_id, limit=STEPS_NAMED + 1)
    known = ", ".join(f"{number:,}" for number in there[:STEPS_NAMED]) or "none"
    more = " …" if len(there) > STEPS_NAMED else ""
    raise NotFound(
        f"This run has no checkpoint at step {step:,}; it may have been deleted. It has "
        f"checkpoints at steps: {known}{more}."
    )


def good_checkpoint(session: Session, run: Run) -> RunCheckpoint | None:
    """The newest checkpoint that was not worse than the base, if one is kept.

    Of a ruined run, or of one whose loss on fixed images is high while it trains.
    """
    steps = run.good_steps or (_good_steps_so_far(session, run) if run.loss_rise else [])
    found = list_checkpoints(session, run.key, steps=steps) if steps else []
    return next((row for row in found if row.version is not None), None)


def _good_steps_so_far(session: Session, run: Run) -> list[int]:
    """The steps whose loss on fixed images was at most that of the base model."""
    losses = values_by_step(session, run.key, FIXED_LOSS)
    base = losses.pop(0, None)
    return [step for step, loss in losses.items() if base is not None and loss <= base]


def keep_checkpoint(session: Session, run_id: int, step: int, *, kept: bool) -> RunCheckpoint:
    """Keep a checkpoint, so that later ones never replace it, or no longer. Raises NotFound."""
    service.get_run(session, run_id, lock=True)
    found = get_checkpoint(session, run_id, step)
    if found.kept != kept:
        for part in (found.state, found.version):
            if part is not None:
                part.kept = kept
                session.add(part)
        words = "is kept" if kept else "is no longer kept"
        jobs.record(session, Run, run_id, NOTICE, text=f"The checkpoint at step {step:,} {words}.")
        session.flush()
    return found


def use_checkpoint(session: Session, run_id: int, step: int, *, name: str = "") -> UsedVersion:
    """Make a version of a checkpoint, and point `latest` to it; the second time only the latter.

    It becomes a version of the adapter that the run made or will make, else of a new one with this
    `name`, or that of the run. Raises NotFound, or Conflict if only the training state is left.
    """
    run = service.get_run(session, run_id, lock=True)
    found = get_checkpoint(session, run_id, step)
    if found.used_as is not None:
        adapter, version = found.used_as
        return use_version(session, adapter.key, version.version)
    if found.version is None or found.address is None:
        raise Conflict(
            f"Of the checkpoint at step {step:,} only the training state is stored, not its "
            "adapter. Continue from it instead."
        )
    new = replace(_new_version(session, run, found.address, found.version), name=name or run.name)
    extended = adapter_for_next_version(session, run)
    used = session.get(Adapter, extended) if extended is not None else None
    before = adapters.get_version(session, used) if used is not None else None
    version = publish(session, new, adapter_id=extended)
    adapter = session.get_one(Adapter, version.adapter_id)
    if not run.state.is_final:
        run.adapter_id = adapter.key  # what the run makes at its end becomes the next version
        session.add(run)
    adapters.order_file(session, version.key)
    text = f"Step {step:,} became version {version.version} of “{adapter.name}”."
    jobs.record(session, Run, run_id, NOTICE, text=text)
    return UsedVersion(adapter, version, before)


def _new_version(
    session: Session, run: Run, address: Adapter, version: AdapterVersion
) -> NewVersion:
    first = (Sample.run_id == run.key, Sample.step == version.version, Sample.prompt_index == 0)
    cover = session.exec(select(Sample.sha256).where(*first)).first()
    copied = version.model_dump(include=SHARED)
    return NewVersion(name=run.name, base_family=address.base_family, cover_sha256=cover, **copied)


def adapter_for_next_version(session: Session, run: Run) -> int | None:
    """The adapter that gets the next version of this run; None: a new one."""
    made = _versions_made(session, run.key)
    return made[0][0].key if made else adapter_of_parent(session, run)


def _versions_made(session: Session, run_id: int) -> Sequence[tuple[Adapter, AdapterVersion]]:
    """The versions that a run or its checkpoints made, the newest first, without deleted ones."""
    query = (
        select(Adapter, AdapterVersion)
        .join(AdapterVersion, col(AdapterVersion.adapter_id) == col(Adapter.id))
        .where(AdapterVersion.run_id == run_id, is_in_library())
    )
    return session.exec(query.order_by(col(AdapterVersion.id).desc())).all()


def _states(session: Session, run_id: int, steps: Collection[int] | None) -> Sequence[Checkpoint]:
    query = select(Checkpoint).where(Checkpoint.run_id == run_id)
    return session.exec(
        query if steps is None else query.where(col(Checkpoint.step).in_(steps))
    ).all()


def _versions(
    session: Session, address: Adapter | None, steps: Collection[int] | None
) -> Sequence[AdapterVersion]:
    if address is None:
        return []
    query = select(AdapterVersion).where(AdapterVersion.adapter_id == address.key)
    if steps is not None:
        query = query.where(col(AdapterVersion.version).in_(steps))
    return session.exec(query).all()


def order_average(
    session: Session, run_id: int, steps: Collection[int], *, use: bool = False
) -> IoJob:
    """Queue the average of these checkpoints' weight changes, cut to the rank of the run.

    `use`: the result becomes the version in use. Raises NotFound, InvalidInput, and Conflict for a
    checkpoint of which only the training state is stored.
    """
    run = service.get_run(session, run_id)
    wanted = sorted(set(steps))
    if not 2 <= len(wanted) <= MAX_MERGE_ADAPTERS:
        raise invalid_field(
            "steps", f"Choose 2 to {MAX_MERGE_ADAPTERS} checkpoints to average, not {len(wanted)}."
        )
    found = [get_checkpoint(session, run_id, step) for step in wanted]
    extended = adapter_for_next_version(session, run)
    if extended is not None:
        rights.require_edit(session, adapters.get_adapter(session, extended))
    args = MergeAdaptersArgs(
        name=run.name,
        parts=tuple(_part(session, row, 1 / len(found)) for row in found),
        method=MergeMethod.SVD,
        rank=max(row.version.rank for row in found if row.version),
        density=1.0,
        seed=0,
        run_id=run.key,
        use=use,
    )
    return jobs.enqueue_io(session, args)


def _part(session: Session, row: RunCheckpoint, weight: float) -> ResolvedAdapter:
    if row.version is None or row.address is None:
        raise Conflict(
            f"Of the checkpoint at step {row.step:,} only the training state is stored, not its "
            "adapter. Leave it out."
        )
    named = WeightedAdapter(adapter_id=row.address.key, version=row.step, weight=weight)
    return resolve(session, named)[0]


@dataclass(frozen=True)
class SamplePage:
    """Samples of the newest steps before a step, and of step 0, which is the base model.

    `steps`: those with samples or a checkpoint, the newest first, without the base model. `older`:
    the step to pass as `before` for the next page; None on the last one.
    """

    steps: list[int]
    samples: list[Sample]
    older: int | None


def list_marked_steps(session: Session, run_id: int) -> list[tuple[int, bool]]:
    """All steps with samples or a checkpoint, without the base model; True: it has samples."""
    sampled = set(session.exec(select(Sample.step).where(Sample.run_id == run_id).distinct()))
    saved = session.exec(select(sa.union(*checkpoint_steps(run_id)).subquery().c[0]))
    return [(step, step in sampled) for step in sorted({*sampled, *saved} - {0})]


def list_sample_page(
    session: Session, run_id: int, *, before: int | None = None, size: int = STEPS_A_PAGE
) -> SamplePage:
    """A page of the samples and checkpoints of a run, by step and prompt."""
    steps = sa.union(
        sa.select(col(Sample.step).label("step")).where(
            col(Sample.run_id) == run_id, col(Sample.step) > 0
        ),
        *checkpoint_steps(run_id),
    ).subquery()
    query = select(steps.c.step).order_by(steps.c.step.desc()).limit(size + 1)
    if before is not None:
        query = query.where(steps.c.step < before)
    newest = list(session.exec(query))
    shown = newest[:size]
    samples = select(Sample).where(Sample.run_id == run_id, col(Sample.step).in_([0, *shown]))
    return SamplePage(
        shown,
        list(session.exec(samples.order_by(col(Sample.step), col(Sample.prompt_index)))),
        older=newest[size - 1] if len(newest) > size else None,
    )
