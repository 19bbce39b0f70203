"""REST: sweeps, which compare configurations of a training beyond what another seed changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, Field, model_validator

from app.registry.db import Session
from app.registry.slugs import Number, RowId
from app.registry.state import AppState
from app.registry.sweeps import service
from app.registry.sweeps.plan import MOST_SEEDS, SUBJECTS, SweepRequest, plan_sweep
from app.registry.sweeps.records import Cost
from app.registry.sweeps.views import SweepView, view_sweep
from app.registry.tables.runs import Sweep
from app.registry.validation import MAX_NAME
from app.web.access.needs import Action, Router
from app.web.answers import Answer, OwnedAnswer, whose_of
from app.web.problems import CANCEL, problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.runs.checkpoints_api import MadeVersionOut
from app.web.runs.start_api import NOT_THERE, RunIn, run_request
from app.web.state import Id, Reading, State, Writing
from worker.core.documented import DocumentedModel
from worker.core.evaluation.intervals import FEWEST
from worker.core.evaluation.subjects import MOST_SUBJECTS

router = Router(tags=["sweeps"])

MOST_VALUES = 64
SettingName = Annotated[str, Field(max_length=60)]
NOT_ENDED = problems({409: "It has not ended, or found no winner and none is named."})


class SweepIn(DocumentedModel):
    """What to compare: the values of settings, all combined, or a list of configurations."""

    model_config = example(
        run={"dataset_id": 1, "config": {"steps": 300}},
        axes={"rank": [4, 8], "learning_rate": [0.0005, 0.001, 0.002]},
        seeds=3,
    )
    run: RunIn | None = Field(None, description="The training that all share.")
    between: Annotated[list[RowId], Field(min_length=2, max_length=2)] | None = None
    """Two runs instead of `run`: the settings in which they differ are axes."""
    axes: dict[SettingName, Annotated[list[Any], Field(max_length=MOST_VALUES)]] = Field(
        default_factory=dict, max_length=8, description="The values of each setting that differs."
    )
    configurations: list[dict[SettingName, Any]] = Field(
        default_factory=list, max_length=MOST_VALUES
    )
    """Instead of `axes`: the settings of each."""
    seeds: Number | Annotated[list[Number], Field(max_length=MOST_VALUES)] = Field(
        3, description=f"The training seeds of each configuration, 2 to {MOST_SEEDS}, or how many."
    )
    title: Annotated[str, Field(max_length=MAX_NAME)] = ""
    """Absent: what differs."""
    subjects: int = Field(SUBJECTS, ge=FEWEST, le=MOST_SUBJECTS // 2)
    """Subjects whose images rank; as many others confirm."""

    @model_validator(mode="after")
    def _one_origin(self) -> SweepIn:
        if (self.run is None) == (self.between is None):
            raise ValueError("Send either run or between.")
        return self


class SeedsIn(BaseModel):
    """More training seeds for the configurations that could not be told apart."""

    model_config = example(count=5)
    count: int = Field(ge=1, le=service.MOST_SEEDS_ADDED, description="How many for each.")


class UseIn(BaseModel):
    """A configuration to use."""

    model_config = example(configuration=0)
    configuration: Number | None = Field(None, description="Its place; absent: the winner.")


class SweepPlanOut(Answer):
    """A sweep that could be started, with its cost."""

    title: str = Field(description="Its title.")
    configurations: list[str] = Field(description="The settings of each, in words.")
    seeds: list[int] = Field(description="The training seeds of each configuration.")
    halves: bool = Field(description="Half of them go on from half of their steps.")
    cost: Cost = Field(description="Runs, images, seconds and bytes that it is expected to take.")


class SweepOut(OwnedAnswer, SweepView):
    """A sweep."""

    address: ClassVar[str] = "/api/v1/sweeps/{id}"


def _sweep_out(session: Session, sweep: Sweep) -> SweepOut:
    return SweepOut(**dict(view_sweep(session, sweep)), **whose_of(sweep))


def _request(state: AppState, session: Session, body: SweepIn) -> SweepRequest:
    """The request for the service. Raises InvalidInput and NotFound."""
    if body.between is not None:
        wanted = service.sweep_between(session, *body.between)
        if body.axes or body.configurations:
            wanted = replace(wanted, axes=body.axes, configurations=body.configurations)
    else:
        assert body.run is not None
        run = run_request(state, body.run)
        wanted = SweepRequest(run=run, axes=body.axes, configurations=body.configurations)
    seeds = body.seeds if isinstance(body.seeds, list) else range(min(body.seeds, MOST_SEEDS + 1))
    return replace(wanted, seeds=tuple(seeds), title=body.title, subjects=body.subjects)


@router.post("/sweeps/estimate", Action.LOOK, responses=NOT_THERE)
def estimate_sweep(body: SweepIn, state: State, session: Reading) -> SweepPlanOut:
    """Check a sweep and estimate its cost; nothing is started."""
    planned = plan_sweep(session, _request(state, session, body))
    names = [one.name for one in planned.plan.configurations]
    return SweepPlanOut.of(planned, planned.plan, configurations=names)


@router.post("/sweeps", Action.TRAIN, status_code=202, responses=NOT_THERE)
def create_sweep(body: SweepIn, state: State, session: Writing) -> SweepOut:
    """Train configurations with the same seeds and find out which one is better.

    All pause at half of their steps and are measured on the same prompts; the better half goes on.
    A winner is named only beyond what another training seed changes, and if one more seed and other
    prompts confirm it.
    """
    planned = plan_sweep(session, _request(state, session, body))
    return _sweep_out(session, service.create_sweep(session, planned))


@router.get("/sweeps", Action.LOOK)
def list_sweeps(session: Reading, part: Part) -> list[SweepOut]:
    """List sweeps, newest first."""
    rows = service.list_sweeps(session, limit=part.size, before=part.after)
    return [_sweep_out(session, row) for row in part.cut(rows, lambda row: row.key)]


@router.get("/sweeps/{sweep_id}", Action.LOOK)
def get_sweep(sweep_id: Id, session: Reading) -> SweepOut:
    """Get a sweep."""
    return _sweep_out(session, service.get_sweep(session, sweep_id))


@router.post("/sweeps/{sweep_id}/pause", Action.CONTROL, **CANCEL)
def pause_sweep(sweep_id: Id, session: Writing) -> SweepOut:
    """Hold the runs of a sweep back that wait; those that train go on."""
    return _sweep_out(session, service.pause_sweep(session, sweep_id))


@router.post("/sweeps/{sweep_id}/resume", Action.CONTROL, **CANCEL)
def resume_sweep(sweep_id: Id, session: Writing) -> SweepOut:
    """Let a sweep go on that was paused, or whose images could not be measured."""
    return _sweep_out(session, service.resume_sweep(session, sweep_id))


@router.post("/sweeps/{sweep_id}/cancel", Action.CONTROL, **CANCEL)
def cancel_sweep(sweep_id: Id, session: Writing) -> SweepOut:
    """Cancel a sweep with its runs and the images to come; what was saved stays."""
    return _sweep_out(session, service.cancel_sweep(session, sweep_id))


@router.post("/sweeps/{sweep_id}/seeds", Action.TRAIN, status_code=202, responses=NOT_ENDED)
def add_sweep_seeds(sweep_id: Id, body: SeedsIn, session: Writing) -> SweepOut:
    """Train the configurations that could not be told apart with more seeds."""
    return _sweep_out(session, service.add_seeds(session, sweep_id, body.count))


@router.post("/sweeps/{sweep_id}/use", Action.EDIT, responses=NOT_ENDED)
def use_sweep_configuration(sweep_id: Id, body: UseIn, session: Writing) -> MadeVersionOut:
    """Make a version of the best run of the winner, or of another configuration.

    `POST /presets` saves its settings, by the id of any of its runs.
    """
    used = service.use_configuration(session, sweep_id, body.configuration)
    return MadeVersionOut.of(used.version)
