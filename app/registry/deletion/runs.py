"""Deletes runs or only their checkpoints, so that they can be restored, and for good."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa
from sqlmodel import Session, col, select

from app.registry.actor import Principal
from app.registry.adapters import mentions
from app.registry.adapters.library.cards import samples_of_versions
from app.registry.adapters.mentions import delete_version_rows, version_users
from app.registry.blobs.deletion import Deletion
from app.registry.datasets import pinned
from app.registry.datasets.used_datasets import version_ids
from app.registry.db import utcnow
from app.registry.deletion import adapters as adapters_deleted
from app.registry.deletion.lists import deleted_row
from app.registry.errors import Conflict, NotFound
from app.registry.job_kinds.states import NOT_FINAL
from app.registry.jobs import service as jobs
from app.registry.runs import checkpoints
from app.registry.runs.checkpoints import RunCheckpoint
from app.registry.runs.service import STATUS_PHRASES, get_run
from app.registry.tables.adapters import Adapter, AdapterVersion, is_listed
from app.registry.tables.jobs import Event
from app.registry.tables.owned import everything, is_hidden, principal_of
from app.registry.tables.prompt_sets import PromptSet
from app.registry.tables.rows import deleted_too
from app.registry.tables.runs import (
    NOTICE,
    Checkpoint,
    MetricChunk,
    OwnPreset,
    Run,
    RunDataset,
    Sample,
)
from app.registry.wording import plural

IS_TRAINING = "is training"
Result = TypeVar("Result")


def discard_run(session: Session, run_id: int) -> Run:
    """Delete a run until it is restored, with its checkpoints; versions made from it stay.

    Raises Conflict if it has not ended, if a run that continues from it has not, or if a job needs
    a checkpoint.
    """
    run = _ended_run(session, run_id)
    _ended_children(session, run)
    _require_unused(session, run, checkpoints.list_checkpoints(session, run_id))
    run.deleted_at = utcnow()
    session.add(run)
    session.connection().execute(
        _checkpoint_versions(session, run_id, None).values(deleted_at=run.deleted_at)
    )
    session.flush()
    return run


def restore_run(session: Session, run_id: int) -> Run:
    """Undo `discard_run`; checkpoints that were deleted before it stay so."""
    with deleted_too(session):
        run = get_run(session, run_id, lock=True)
    if run.deleted_at is not None:
        versions = _checkpoint_versions(session, run_id, run.deleted_at)
        session.connection().execute(versions.values(deleted_at=None))
        run.deleted_at = None
        session.add(run)
        session.flush()
    return run


def _checkpoint_versions(session: Session, run_id: int, moment: datetime | None) -> sa.Update:
    """An update of the adapters of the checkpoints of a run that were deleted at a moment."""
    addresses = sa.select(col(Adapter.id)).where(col(Adapter.run_id) == run_id)
    versions = sa.update(AdapterVersion).where(col(AdapterVersion.adapter_id).in_(addresses))
    return versions.where(col(AdapterVersion.deleted_at).is_not_distinct_from(moment))


def delete_deleted_run(session: Session, run_id: int) -> Deletion:
    """Delete a run like `delete_run`. Raises Conflict if it is not deleted yet."""
    deleted_row(session, Run, run_id)
    return delete_run(session, run_id)


def delete_deleted_runs(session: Session) -> Deletion:
    """Delete all deleted runs for good."""
    deleted = session.exec(select(Run.id).where(col(Run.deleted_at).is_not(None)))
    keys = [key for key in deleted if key is not None]
    return delete_runs(session, keys) if keys else Deletion("no runs")


def delete_run(session: Session, run_id: int) -> Deletion:
    """Delete a run with its samples, checkpoints and metrics.

    The versions it made stay, those made of its checkpoints too, each with its own samples.
    Raises Conflict if it has not ended, or if a run that continues from it has not.
    """
    run = _ended_run(session, run_id)
    _release_children(session, run)
    deletion = Deletion(f"run {run_id}, “{run.name}”")
    principal = principal_of(session)
    with everything(session):
        _keep_samples_of_versions(session, run, deletion, principal)
    mentions.forget_images(session, deletion.files)
    found = checkpoints.list_checkpoints(session, run_id)
    address = checkpoints.address_of(session, run_id)
    _delete_checkpoint_rows(session, run, found, deletion)
    if address is not None:
        adapters_deleted.delete_adapter_rows(session, address.key)
    dataset_versions = version_ids(session, run)
    connection = session.connection()
    made = sa.update(AdapterVersion).where(col(AdapterVersion.run_id) == run_id)
    connection.execute(made.values(run_id=None))
    for owned in (Sample, MetricChunk, RunDataset):
        connection.execute(sa.delete(owned).where(col(owned.run_id) == run_id))
    connection.execute(sa.delete(Run).where(col(Run.id) == run_id))
    jobs.forget_texts(session, Run, [run_id])
    session.expire_all()
    deletion.include(pinned.prune_versions(session, dataset_versions))
    return deletion


def _keep_samples_of_versions(
    session: Session, run: Run, deletion: Deletion, principal: Principal | None
) -> None:
    """Give each version that came from a run a copy of its samples; the others are deleted."""
    of_run = select(Adapter, AdapterVersion).where(
        col(AdapterVersion.adapter_id) == col(Adapter.id),
        AdapterVersion.run_id == run.key,
        is_listed(),
    )
    versions = session.exec(of_run.order_by(col(Adapter.id), col(AdapterVersion.version))).all()
    samples = samples_of_versions(session, [version.key for _, version in versions])
    kept = {sample.key: sample.sha256 for rows in samples.values() for sample in rows}
    for adapter, version in versions:
        own = samples.get(version.key, [])
        for sample in own:
            copied = sample.model_dump(exclude={"id", "run_id"})
            session.add(Sample(**copied | {"version_id": version.key}))
        if is_hidden(principal, adapter):
            deletion.stays.append("A version of a private adapter stays, with its samples.")
        else:
            deletion.stays.append(_version_stays(run, adapter, version, len(own)))
    if versions:
        them = "it" if len(versions) == 1 else "them"
        deletion.stays.append(f"“Train again” then no longer works for {them}.")
    session.flush()
    every = session.exec(select(Sample.id, Sample.sha256).where(Sample.run_id == run.key)).all()
    deletion.count(sum(key not in kept for key, _ in every), "sample")
    deletion.files.update({sha256 for _, sha256 in every}.difference(kept.values()))


def _version_stays(run: Run, adapter: Adapter, version: AdapterVersion, samples: int) -> str:
    """A sentence on a version that came from a run which is deleted."""
    deleted = "deleted " if adapter.deleted_at else ""
    words = f"Version {version.version} of the {deleted}adapter “{adapter.name}” stays"
    words += f", with its {plural(samples, 'sample')}" if samples else ""
    if version.key != run.adapter_version_id and version.steps is not None:
        words += f"; the checkpoint at step {version.steps:,} that it was made of goes"
    return f"{words}."


def delete_runs(session: Session, run_ids: Collection[int]) -> Deletion:
    """Delete those of these runs that can be deleted, like `delete_run`; the others stay.

    Raises NotFound if all are gone already, and Conflict if none can be deleted.
    """
    deleted, refused = each_run(session, run_ids, delete_run)
    if len(deleted) == 1:
        deletion = deleted[0]
    else:
        deletion = Deletion(f"{len(deleted)} runs")
        for one in reversed(deleted):
            parts = f" with {', '.join(one.goes)}" if one.goes else ""
            deletion.include(replace(one, goes=[f"{one.title}{parts}"]))
    deletion.stays = [*refused, *deletion.stays]
    return deletion


def each_run(
    session: Session, run_ids: Collection[int], act: Callable[[Session, int], Result]
) -> tuple[list[Result], list[str]]:
    """The results of an act on each of these runs that allows it, and why others do not."""
    done: list[Result] = []
    refused: list[str] = []
    for run_id in sorted(set(run_ids), reverse=True):  # one that continues another goes first
        try:
            with session.begin_nested():
                done.append(act(session, run_id))
        except Conflict as conflict:
            refused.append(conflict.detail)
        except NotFound:  # deleted meanwhile
            continue
    if refused and not done:
        raise Conflict(" ".join(refused))
    if not done:
        raise NotFound("These runs do not exist; they may have been deleted already.")
    return done, refused


def discard_checkpoint(session: Session, run_id: int, step: int) -> RunCheckpoint:
    """Delete the checkpoint of a run that has ended at a step until it is restored.

    Raises NotFound if there is none, and Conflict while a job needs it, or if it has no adapter.
    """
    run = _ended_run(session, run_id)
    found = checkpoints.get_checkpoint(session, run_id, step)
    if found.version is None:
        raise Conflict("Only its training state is left, which can only be deleted for good.")
    _require_unused(session, run, [found])
    _mark(session, found, utcnow())
    return found


def restore_checkpoint(session: Session, run_id: int, step: int) -> RunCheckpoint:
    """Undo `discard_checkpoint`."""
    get_run(session, run_id, lock=True)
    with deleted_too(session):
        found = checkpoints.get_checkpoint(session, run_id, step)
    _mark(session, found, None)
    return checkpoints.get_checkpoint(session, run_id, step)


def _mark(session: Session, checkpoint: RunCheckpoint, moment: datetime | None) -> None:
    for part in (checkpoint.state, checkpoint.version):
        if part is not None:
            part.deleted_at = moment
            session.add(part)
    session.flush()


def delete_deleted_checkpoint(session: Session, run_id: int, step: int) -> Deletion:
    """Delete a checkpoint like `delete_checkpoints`. Raises Conflict if it is not deleted yet.

    One without an adapter need not be.
    """
    version = checkpoints.get_checkpoint(session, run_id, step).version
    if version is not None and version.deleted_at is None:
        raise Conflict("This checkpoint is not deleted. Delete it first, then for good.")
    return delete_checkpoints(session, run_id, step=step)


def delete_checkpoints(session: Session, run_id: int, *, step: int | None = None) -> Deletion:
    """Delete the checkpoint of a run that has ended at a step, or all that nobody keeps.

    Raises NotFound if there is none, and Conflict while a job needs one.
    """
    run = _ended_run(session, run_id)
    found = checkpoints.list_checkpoints(session, run_id, steps=None if step is None else [step])
    rows = [row for row in found if step is not None or not row.kept]
    if not rows:
        raise NotFound("There is no such checkpoint; it may have been deleted already.")
    deletion = Deletion(f"{_steps_words(rows)} of run {run_id}, “{run.name}”")
    deletion.stays.append("The run stays; it can only be continued from a checkpoint.")
    _note_kept_checkpoints(deletion, len(found) - len(rows), "Delete each beside its samples.")
    for used in (row.used_as for row in rows):
        if used is not None:
            deletion.stays.append(f"Version {used[1].version} of “{used[0].name}” stays.")
    _delete_checkpoint_rows(session, run, rows, deletion)
    return deletion


def delete_all_checkpoints(session: Session, *, before: datetime | None = None) -> Deletion:
    """Delete the training states of runs that have ended, or only of those that ended earlier.

    The adapters of these checkpoints stay, and so do states that a person keeps, and those of runs
    and checkpoints that can be restored.
    """
    ended = select(Checkpoint, Run).join(Run).where(col(Run.status).not_in(NOT_FINAL))
    if before is not None:
        ended = ended.where(col(Run.finished_at) < before)
    found = session.exec(ended.with_for_update(of=Checkpoint)).all()
    there = [state for state, run in found if not (state.deleted_at or run.deleted_at)]
    rows = [state for state in there if not state.kept]
    deletion = Deletion("the training states of runs that have ended")
    deletion.stays.append("The runs stay; they cannot be continued any more.")
    deletion.stays.append("The adapters of their checkpoints stay.")
    _note_kept_checkpoints(deletion, len(there) - len(rows), "Delete each on the page of its run.")
    if restorable := len(found) - len(there):
        words = plural(restorable, "training state")
        deletion.stays.append(
            f"{words} of what you deleted {'stays' if restorable == 1 else 'stay'}, until you "
            "delete that for good."
        )
    deletion.count(len(rows), "training state")
    _delete_states(session, rows, deletion)
    return deletion


def _note_kept_checkpoints(deletion: Deletion, number: int, how: str) -> None:
    if number:
        is_one = number == 1
        words = "checkpoint that is kept stays" if is_one else "checkpoints that are kept stay"
        deletion.stays.append(f"{number:,} {words}. {how}")


def _delete_checkpoint_rows(
    session: Session, run: Run, rows: Sequence[RunCheckpoint], deletion: Deletion
) -> None:
    """Delete states and adapters. Raises Conflict while a job needs one of the adapters."""
    _require_unused(session, run, rows)
    versions = [row.version for row in rows if row.version is not None]
    deletion.count(len(rows), "checkpoint")
    _delete_states(session, [row.state for row in rows if row.state is not None], deletion)
    keys = [version.key for version in versions]
    deletion.count(delete_version_rows(session, versions, deletion), "download")
    gone = sa.delete(AdapterVersion).where(col(AdapterVersion.id).in_(keys))
    session.connection().execute(gone)
    session.expire_all()


def _require_unused(session: Session, run: Run, rows: Sequence[RunCheckpoint]) -> None:
    for row in rows:
        if row.version is not None and (users := version_users(session, row.version)):
            raise Conflict(
                f"The checkpoint at step {row.step:,} of “{run.name}” is used by {users}. "
                "Wait until they have ended or cancel them, then delete it."
            )


def _delete_states(session: Session, rows: Sequence[Checkpoint], deletion: Deletion) -> None:
    deletion.files |= {row.sha256 for row in rows}
    for row in rows:
        session.delete(row)
    session.flush()


def _steps_words(rows: Sequence[RunCheckpoint]) -> str:
    if len(rows) == 1:
        return f"the checkpoint at step {rows[0].step:,}"
    return f"the {len(rows)} checkpoints"


def _ended_run(session: Session, run_id: int) -> Run:
    """The run, locked. Raises NotFound, or Conflict if it has not ended."""
    run = get_run(session, run_id, lock=True)
    if not run.state.is_final:
        words = STATUS_PHRASES.get(run.state, IS_TRAINING)
        raise Conflict(f"“{run.name}” {words}. Cancel it first, then delete it.")
    return run


def _ended_children(session: Session, run: Run) -> Sequence[Run]:
    """The runs that continued from this one. Raises Conflict if one has not ended."""
    with everything(session):
        children = session.exec(select(Run).where(Run.parent_id == run.key)).all()
    for child in children:
        if not child.state.is_final:
            raise Conflict(
                f"Run {child.key} continues from “{run.name}” and has not ended. Wait until it has "
                "ended or cancel it, then delete this run."
            )
    return children


def _release_children(session: Session, run: Run) -> None:
    """Let the runs that continued from this one forget it. Raises Conflict if one has not ended."""
    children = _ended_children(session, run)
    with everything(session):
        for child in children:
            child.parent_id = None
            session.add(child)
        keys = [child.key for child in children]
        notices = select(Event).where(
            Event.subject == Run.__tablename__,
            col(Event.subject_id).in_(keys),
            Event.kind == NOTICE,
        )
        for event in session.exec(notices):
            if f"(run {run.key})" in str(event.data.get("text", "")):
                event.data = {"text": "Continues from a run that was deleted."}
                session.add(event)
        session.flush()


def delete_preset(session: Session, preset_id: int) -> Deletion:
    """Delete a deleted preset of one's own. Raises Conflict if it is not deleted yet."""
    preset = deleted_row(session, OwnPreset, preset_id)
    session.delete(preset)
    return Deletion(f"the preset “{preset.name}”")


def delete_prompt_set(session: Session, set_id: int) -> Deletion:
    """Delete a deleted prompt set; what was drawn with it stays. Raises Conflict if it is not."""
    row = deleted_row(session, PromptSet, set_id)
    session.delete(row)
    return Deletion(f"the prompt set “{row.name}”")
