"""REST: the checkpoints of a run."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Path
from pydantic import Field

from app.registry.db import MAX_ID
from app.registry.deletion.runs import restore_checkpoint as restore_deleted_checkpoint
from app.registry.runs import checkpoints, service
from app.registry.runs.checkpoints import RunCheckpoint
from app.registry.runs.epochs import Epochs, run_epochs
from app.web.access.needs import Action, Router
from app.web.answers import Answer
from app.web.problems import problems
from app.web.rest.lists import Part
from app.web.state import Id, Reading, Writing

router = Router()
Step = Annotated[
    int, Path(ge=1, le=MAX_ID, description="Training step of the checkpoint.", examples=[40])
]


class MadeVersionOut(Answer):
    """The version of an adapter that was made of a checkpoint."""

    adapter_id: int = Field(description="The adapter.")
    version: int = Field(description="Number of the version.")


class CheckpointOut(Answer):
    """A checkpoint of a run: a training state, an adapter, or both.

    Its adapter can be used wherever a version can: `adapter_id` with `step` as the version.
    """

    step: int = Field(description="Training step. `continues` accepts it if there is a state.")
    epoch: float | None = Field(description="Epochs done at this step.")
    size_bytes: int | None
    """Size of the training state; null if only the adapter is left."""
    adapter_id: int | None
    """The unlisted adapter of the run, whose version `step` it is; null without."""
    adapter_bytes: int | None = Field(description="Size of the adapter in fp32.")
    kept: bool = Field(description="True if a person saved or keeps it: it is never replaced.")
    used_as: MadeVersionOut | None = Field(description="The version that was made of it.")
    is_in_use: bool = Field(description="True if `latest` points to that version.")
    created_at: datetime = Field(description="When it was saved.")


def checkpoint_out(row: RunCheckpoint, epochs: Epochs) -> CheckpointOut:
    """A checkpoint as the API shows it."""
    return CheckpointOut.of(
        row,
        epoch=epochs.at(row.step),
        size_bytes=row.state.size_bytes if row.state else None,
        adapter_id=row.address.key if row.address and row.version else None,
        adapter_bytes=row.version.size_bytes if row.version else None,
        used_as=MadeVersionOut.of(row.used_as[1]) if row.used_as else None,
    )


@router.get("/runs/{run_id}/checkpoints", Action.LOOK)
def list_run_checkpoints(run_id: Id, session: Reading, part: Part) -> list[CheckpointOut]:
    """List the checkpoints of a run, newest first."""
    epochs = run_epochs(session, service.get_run(session, run_id))
    total = checkpoints.count_checkpoints(session, run_id)
    steps = checkpoints.newest_steps(session, run_id, limit=part.size, before=part.after)
    shown = part.cut(steps, int, total=total)
    rows = checkpoints.list_checkpoints(session, run_id, steps=shown)
    return [checkpoint_out(row, epochs) for row in rows]


@router.put("/runs/{run_id}/checkpoints/{step}/keep", Action.EDIT)
def keep_checkpoint(run_id: Id, step: Step, session: Writing) -> CheckpointOut:
    """Keep a checkpoint, so that later ones never replace it."""
    row = checkpoints.keep_checkpoint(session, run_id, step, kept=True)
    return checkpoint_out(row, run_epochs(session, service.get_run(session, run_id)))


@router.delete("/runs/{run_id}/checkpoints/{step}/keep", Action.EDIT)
def release_checkpoint(run_id: Id, step: Step, session: Writing) -> CheckpointOut:
    """Keep a checkpoint no longer; while the run trains, later ones may replace it."""
    row = checkpoints.keep_checkpoint(session, run_id, step, kept=False)
    return checkpoint_out(row, run_epochs(session, service.get_run(session, run_id)))


@router.post("/runs/{run_id}/checkpoints/{step}/restore", Action.OWN)
def restore_checkpoint(run_id: Id, step: Step, session: Writing) -> CheckpointOut:
    """Restore a deleted checkpoint of a run."""
    row = restore_deleted_checkpoint(session, run_id, step)
    return checkpoint_out(row, run_epochs(session, service.get_run(session, run_id)))


@router.post(
    "/runs/{run_id}/checkpoints/{step}/use",
    Action.EDIT,
    responses=problems({409: "Only its training state is stored."}),
)
def use_checkpoint(run_id: Id, step: Step, session: Writing) -> MadeVersionOut:
    """Make a version of a checkpoint and point `latest` to it.

    It becomes a version of the adapter of the run, or of a new adapter if there is none. Using it
    twice makes one version.
    """
    return MadeVersionOut.of(checkpoints.use_checkpoint(session, run_id, step).version)
