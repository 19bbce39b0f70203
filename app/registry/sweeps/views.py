"""A sweep as it is now: its configurations, the best first, with their runs and measures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa
from pydantic import Field
from sqlmodel import Session, col, select

from app.registry.base_models import service as base_models
from app.registry.base_models.sizes import USUAL_SIDE
from app.registry.errors import NotFound
from app.registry.job_kinds.states import JobStatus
from app.registry.renders.grids import service as grids
from app.registry.renders.grids.views import GridView, grid_view
from app.registry.sweeps.plan import PIXEL_BYTES
from app.registry.sweeps.records import (
    Confirmation,
    Cost,
    Found,
    SweepPlan,
    SweepResult,
    read_plan,
    read_result,
)
from app.registry.sweeps.service import runs_of
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.renders import GridCell, Render
from app.registry.tables.rows import deleted_too
from app.registry.tables.runs import Checkpoint, Run, Stage, Sweep
from worker.core.documented import DocumentedModel


class RunView(DocumentedModel):
    """A run of a configuration."""

    run_id: int = Field(description="The run.")
    seed: int = Field(description="Its training seed.")
    status: JobStatus = Field(description="Its status; `paused` at half of its steps.")
    step: int = Field(description="The steps that are done.")
    style: float | None = None
    """Measured last: 0 as the base model, 1 as the dataset."""
    grid_id: int | None = Field(None, description="The grid with its images.")
    column: int | None = Field(None, description="Its column there, from 0.")


class ConfigurationView(DocumentedModel):
    """A configuration with what was measured; null: not measured."""

    configuration: int = Field(description="Its place in the plan, from 0.")
    name: str = Field(description="Its settings in words.")
    settings: dict[str, Any] = Field(description="Its settings.")
    style: float | None = Field(description="Mean over the seeds, at the last step measured.")
    style_half: float | None
    """Half of the interval of 95 % of that, with the spread of all pooled."""
    adherence: float | None = Field(description="Prompts followed; 1: as the base model.")
    styles: list[tuple[int, float]] = Field(description="The mean style by step.")
    ended: str | None = Field(description="Why it did not train to the end; null: it did.")
    seconds: float = Field(description="Training time of its runs so far.")
    size_bytes: int = Field(description="Size of their checkpoints.")
    runs: list[RunView] = Field(description="Its runs, without those that confirm.")


class SweepView(DocumentedModel):
    """A sweep."""

    id: int = Field(description="Its id: poll `/sweeps/{id}`.")
    title: str = Field(description="Its title.")
    status: JobStatus = Field(description="`running` until it has ended; `failed` may be resumed.")
    stage: Stage = Field(description="What trains: all to `half`, those that go on, the first two.")
    created_at: datetime = Field(description="When it was started.")
    finished_at: datetime | None = Field(description="When it ended.")
    error: str | None = Field(description="Why it cannot go on, as a sentence.")
    progress: float = Field(description="Share of the steps that are done, 0 to 1.")
    winner: int | None = Field(description="Place of the configuration that won; null: none.")
    reason: str | None = Field(description="What was found, as sentences; null before the end.")
    found: Found | None = Field(description="The last comparison; null before it.")
    confirmation: Confirmation | None
    """The first two with a seed and prompts that did not choose them."""
    expected: Cost = Field(description="What it was expected to cost.")
    seconds: float = Field(description="Training and drawing so far.")
    size_bytes: int = Field(description="Size of its files, about.")
    saved_seconds: float = Field(description="What ending early has saved.")
    configurations: list[ConfigurationView] = Field(description="The best one first.")


def view_sweep(session: Session, sweep: Sweep) -> SweepView:
    """A sweep with its runs and costs."""
    plan, result = read_plan(sweep), read_result(sweep)
    runs = runs_of(session, sweep)
    sizes = _sizes(session, [run.key for run in runs])
    rows = [_row(plan, result, place, runs, sizes) for place in range(len(plan.configurations))]
    rows.sort(key=lambda row: _rank(result, row))
    seconds, images = _drawn(session, result)
    side = USUAL_SIDE
    if runs:
        base = base_models.base_of(session, runs[0].base_model_id)
        side = base.resolution or USUAL_SIDE
    goals = [run.pause_at or run.total_steps for run in runs]
    return SweepView(
        **sweep.model_dump(exclude={"plan", "result"}),
        **result.model_dump(include={"winner", "found", "confirmation"}),
        reason=result.reason or None,
        expected=plan.cost,
        configurations=rows,
        progress=sum(run.step for run in runs) / max(1, sum(goals)),
        seconds=seconds + sum(run.training_seconds for run in runs),
        size_bytes=sum(sizes.values()) + images * side * side * PIXEL_BYTES,
        saved_seconds=sum(map(_saved, runs)),
    )


def images_of(session: Session, view: SweepView, seed: int, most: int) -> dict[int, list[str]]:
    """The hashes of the first images of each configuration with a training seed, by its place."""
    shown: dict[int, GridView] = {}
    found = {}
    for row in view.configurations:
        for run in row.runs:
            if run.seed != seed or run.grid_id is None or run.column is None:
                continue
            with suppress(NotFound):  # the grid was deleted for good
                if run.grid_id not in shown:
                    shown[run.grid_id] = grid_view(session, grids.get_grid(session, run.grid_id))
                grid = shown[run.grid_id]
                cells = grid.cells[run.column :: len(grid.axes[0].values)][:most]
                found[row.configuration] = [
                    cell.image.sha256 if cell.image else "" for cell in cells
                ]
    return found


def _row(
    plan: SweepPlan, result: SweepResult, place: int, runs: Sequence[Run], sizes: dict[int, int]
) -> ConfigurationView:
    own = [run for run in runs if run.sweep_place == place]
    of_stages = {
        stage: [one for one in result.scores.get(stage, ()) if one.place == place]
        for stage in (Stage.HALF, Stage.FULL)
    }
    last = of_stages[Stage.FULL] or of_stages[Stage.HALF]
    measured = {one.run_id: one.model_dump(include={"style", "grid_id", "column"}) for one in last}
    shown = [run for run in own if run.config["seed"] in plan.seeds]
    steps = [
        (scores[0].step, float(np.mean([one.style for one in scores])))
        for scores in of_stages.values()
        if scores
    ]
    adherence = [one.adherence for one in last if one.adherence is not None]
    early = [run.step for run in shown if run.pause_at and run.state.is_final]
    return ConfigurationView(
        configuration=place,
        **plan.configurations[place].model_dump(),
        style=steps[-1][1] if steps else None,
        style_half=result.found.half if result.found and steps else None,
        adherence=float(np.mean(adherence)) if adherence else None,
        styles=steps,
        ended=result.left_out.get(place) or (f"ended at {max(early):,}" if early else None),
        seconds=sum(run.training_seconds for run in own),
        size_bytes=sum(sizes.get(run.key, 0) for run in own),
        runs=[
            RunView(
                run_id=run.key,
                seed=run.config["seed"],
                status=run.state,
                step=run.step,
                **measured.get(run.key, {}),
            )
            for run in shown
        ],
    )


def _rank(result: SweepResult, row: ConfigurationView) -> tuple[bool, bool, bool, float]:
    """The winner, those that went on by style, those that ended early, then those left out."""
    place = row.configuration
    is_left_out, is_early = place in result.left_out, row.ended is not None
    return place != result.winner, is_left_out, is_early, -(row.style or 0.0)


def _saved(run: Run) -> float:
    """The seconds that a run did not take because it ended early."""
    if run.state is not JobStatus.SUCCEEDED or not run.step:
        return 0.0
    return run.training_seconds * (run.total_steps - run.step) / run.step


def _sizes(session: Session, run_ids: Sequence[int]) -> dict[int, int]:
    """The bytes of the checkpoints of each run."""
    states = select(Checkpoint.run_id, sa.func.sum(Checkpoint.size_bytes))
    states = states.where(col(Checkpoint.run_id).in_(run_ids)).group_by(col(Checkpoint.run_id))
    adapters = (
        select(Adapter.run_id, sa.func.sum(AdapterVersion.size_bytes))
        .join(AdapterVersion, col(AdapterVersion.adapter_id) == col(Adapter.id))
        .where(col(Adapter.run_id).in_(run_ids))
        .group_by(col(Adapter.run_id))
    )
    found = Counter[int]()
    with deleted_too(session):  # they take their place until they are deleted for good
        for key, size in (*session.exec(states), *session.exec(adapters)):
            found[key or 0] += int(size)
    return found


def _drawn(session: Session, result: SweepResult) -> tuple[float, int]:
    """The seconds that drawing its images took, and their number."""
    grids = {one.grid_id for scores in result.scores.values() for one in scores}
    cells = col(GridCell.grid_id).in_(grids)
    own = select(GridCell.render_id).where(cells, col(GridCell.render_id).is_not(None))
    spent = select(sa.func.sum(Render.seconds)).where(
        col(Render.id).in_(own), col(Render.from_cache).is_(False)
    )
    images = select(sa.func.count()).select_from(GridCell).where(cells)
    return float(session.exec(spent).one() or 0.0), int(session.exec(images).one())
