"""REST: runs, one by one and two side by side."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from fastapi import Query
from pydantic import BaseModel, Field, StrictBool

from app.registry.comparison.runs import compare_runs
from app.registry.comparison.side_by_side import PromptPair
from app.registry.datasets.used_datasets import UsedDataset
from app.registry.db import MAX_ID, Session
from app.registry.job_kinds.states import JobStatus
from app.registry.people.whose import only
from app.registry.runs import changing, listing, service, stopping
from app.registry.runs.epochs import run_epochs
from app.registry.runs.listing import RunFilter, RunRow, RunSort
from app.registry.runs.progress import run_metrics
from app.registry.runs.settings import Difference
from app.registry.slugs import Reference
from app.registry.tables.adapters import Adapter
from app.registry.tables.added_models import BaseModel as BaseModelRow
from app.registry.tables.datasets import Dataset
from app.registry.tables.runs import Run
from app.registry.validation import Name
from app.web.access.needs import Action, Router
from app.web.answers import Answer, OwnedAnswer, image_urls
from app.web.problems import CANCEL, problems
from app.web.rest.bodies import Patch, change, example
from app.web.rest.lists import Part, Whose
from app.web.runs import checkpoints_api, presets_api, start_api
from app.web.state import Id, Reading, State, Writing, find_id
from worker.core.documented import DocumentedModel
from worker.core.training.changes import CHANGEABLE
from worker.core.training.events import Phase

router = Router(tags=["runs"])
router.include_router(start_api.router)
router.include_router(checkpoints_api.router)
router.include_router(presets_api.router)
Interval = Annotated[int, Field(strict=True, ge=0, le=100_000)]
NOT_RUNNING = problems({409: "The run is not running."})


class RunPatch(Patch):
    """The changes to a run; absent fields stay."""

    model_config = example(name="Ink, rank 8")
    name: Name = change("New name. An adapter that the run made keeps its own.")
    notes: Annotated[str, Field(max_length=changing.MAX_NOTES)] = change(
        "Your notes; never part of a download."
    )
    steps: Annotated[int, Field(strict=True, ge=1, le=100_000)] = change(
        "Training steps in all, not below those done."
    )
    checkpoint_every: Interval = change("Steps between checkpoints.")
    sample_every: Interval = change("Steps between rows of samples.")
    patience: Annotated[int, Field(strict=True, ge=0, le=100)] = change(
        "Checkpoints without a closer style after which it ends by itself; 0: never."
    )


class StopIn(DocumentedModel):
    """The choice for the result of a run that is stopped."""

    model_config = example()
    make_latest: StrictBool | None = None
    """True: the result becomes the version in use. False: `latest` stays. Null: as true, unless the
    result has under half the steps of the version in use, or its samples equal those of the base
    model. The first version of an adapter is always in use."""


NO_CHOICE = StopIn()


class RunOut(OwnedAnswer):
    """A run."""

    address: ClassVar[str] = "/api/v1/runs/{id}"
    id: int = Field(description="Id of the run.")
    name: str = Field(description="Its name, which the adapter it makes gets.")
    notes: str = Field(description="Your notes.")
    status: JobStatus = Field(description="Its status.")
    queue_place: int | None
    """Its place in the queue, from 1; null if it does not wait."""
    phase: Phase | None = Field(description="Part of the work that is being done.")
    dataset_id: int = Field(description="Its dataset, the first one of several.")
    datasets: list[UsedDataset] = Field(description="All its datasets, with their repeats.")
    trigger_word: str | None = Field(description="Word that calls the style.")
    base_model: int = Field(description="Id of its base model.")
    preset: str | None = Field(description="The shipped preset it was started with.")
    own_preset: dict[str, Any] | None
    """Your own preset on top of it, as it was then: id, name and config."""
    step: int = Field(description="Training steps done.")
    total_steps: int = Field(description="Training steps in all.")
    epoch: float | None = Field(description="Epochs done: how often each image was used.")
    total_epochs: float | None = Field(description="Epochs in all.")
    steps_per_epoch: float | None = Field(description="Steps in which each image is used once.")
    loss: float | None = Field(description="Smoothed training loss.")
    steps_per_second: float | None = Field(description="Measured speed.")
    eta_seconds: float | None = Field(description="Estimate of the training time left.")
    waits_for: str | None
    """What it waits for during an outage, on a full disk, or when the device time of its owner is
    used up, as a sentence."""
    error: str | None = Field(description="Why it failed, as a sentence.")
    error_code: str | None = Field(description="Why it failed, as a word.")
    outcome: Literal["ruined"] | None
    """`ruined`: it succeeded, but the result is worse than the base model."""
    outcome_reason: str | None = Field(description="Why it is ruined, as sentences.")
    good_steps: list[int] | None
    """Of a ruined run: checkpoints that were not worse, the newest first."""
    loss_rise: float | None
    """Loss on fixed images, divided by the base model's, while it is clearly worse."""
    adapter_id: int | None = Field(description="The adapter it made.")
    adapter_version: int | None = Field(description="The version of the adapter it made.")
    trainable_parameters: int | None = Field(description="Parameters of the adapter.")
    base_parameters: int | None = Field(description="Parameters of the base model.")
    peak_memory_bytes: int | None = Field(description="Highest memory use so far.")
    training_seconds: float = Field(description="Training time of all attempts.")
    attempt: int = Field(description="Attempts since its newest checkpoint.")
    resumed_at_step: int | None = Field(description="Start step of the newest attempt.")
    parent_id: int | None = Field(description="The run that it continues.")
    cancel_requested: bool = Field(description="True if it is being canceled.")
    make_latest: bool | None
    """Of a stop: its result becomes the version in use; null: as proposed then."""
    changes: list[dict[str, Any]]
    """What changed in `config` while it trained, oldest first: values `before` and `after` by
    setting, from the step after `step` on."""
    change_requested: dict[str, int] | None
    """Settings that will change with the next step, by name."""
    created_at: datetime = Field(description="When it was queued.")
    started_at: datetime | None = Field(description="When a worker first started it.")
    finished_at: datetime | None = Field(description="When it ended.")
    config: dict[str, Any] = Field(description="All settings of the training.")


class SampleOut(Answer):
    """An image generated during a run; step 0 is the base without the adapter."""

    step: int = Field(description="Training step.")
    epoch: float | None = Field(description="Epochs done at this step.")
    prompt_index: int = Field(description="Place of the prompt in the settings, from 0.")
    prompt: str = Field(description="Its prompt.")
    seed: int = Field(description="Its seed.")
    url: str = Field(description="Address of the PNG.")
    thumbnail_url: str = Field(description="Address of a small WebP of it.")


class SeriesOut(BaseModel):
    """One metric; a NaN or infinite value is null."""

    steps: list[int] = Field(description="Training steps.")
    values: list[float | None] = Field(description="The value at each of these steps.")


class MetricsOut(BaseModel):
    """Metrics after a step; poll with `after=last_step`."""

    last_step: int = Field(description="Send it as `after` to get what comes next.")
    series: dict[str, SeriesOut] = Field(description="Points by metric, such as `loss`.")


def run_out(session: Session, run: Run) -> RunOut:
    """A run as the API shows it."""
    (row,) = listing.read_runs(session, [run.key])
    return _run_out(row)


def _run_out(row: RunRow) -> RunOut:
    run, epochs = row.run, row.epochs
    made = (row.adapter, row.version) if row.adapter and row.version else None
    return RunOut.of(
        run,
        base_model=run.base_model_id,
        datasets=row.datasets,
        epoch=epochs.at(run.step),
        total_epochs=epochs.at(run.total_steps),
        steps_per_epoch=epochs.steps,
        eta_seconds=service.eta_seconds(run),
        adapter_id=made[0].key if made else None,
        adapter_version=made[1].version if made else None,
        queue_place=row.place,
        waits_for=row.waits_for,
        change_requested=changing.pending_values(run),
    )


@router.get("/runs", Action.LOOK)
def list_runs(
    state: State,
    session: Reading,
    part: Part,
    q: Annotated[
        str,
        Query(
            max_length=200,
            description="Words in names, notes, trigger words, datasets, base models and adapters, "
            'or the number of a run; `"two words"` as a phrase.',
        ),
    ] = "",
    status: Annotated[JobStatus | None, Query(description="Only runs with this status.")] = None,
    dataset_id: Annotated[
        Reference | None, Query(description="Only runs on this dataset: its id or slug.")
    ] = None,
    base_model: Annotated[
        Reference | None, Query(description="Only runs on this base model: its id or slug.")
    ] = None,
    adapter_id: Annotated[
        Reference | None,
        Query(description="Only runs that made or will make versions of this adapter."),
    ] = None,
    sort: Annotated[RunSort, Query(description="Order.")] = RunSort.NEWEST,
    whose: Whose = None,
) -> list[RunOut]:
    """List or search runs, newest first by default."""
    filters = RunFilter(
        q,
        status or "",
        find_id(state, Dataset, dataset_id),
        find_id(state, BaseModelRow, base_model),
        find_id(state, Adapter, adapter_id),
        sort,
    )
    with only(session, Run, whose):
        ids = part.of(listing.matching_runs(session, filters), int)
    return [_run_out(row) for row in listing.read_runs(session, ids)]


class ComparedRunsOut(Answer):
    """Two runs side by side."""

    a: int = Field(description="The first run.")
    b: int = Field(description="The second run.")
    settings: list[Difference] = Field(description="The settings that differ.")
    data: list[Difference] = Field(description="What they were trained on, also where it is equal.")
    results: list[Difference] = Field(description="What came out, also where it is equal.")
    notes: list[str] = Field(description="What to know when comparing them, as sentences.")
    samples: list[PromptPair] = Field(description="Empty unless both have samples.")


@router.get(
    "/runs/compare", Action.LOOK, responses=problems({404: "One of the runs does not exist."})
)
def compare_two_runs(
    session: Reading,
    a: Annotated[int, Query(ge=1, le=MAX_ID, description="The first run.")],
    b: Annotated[int, Query(ge=1, le=MAX_ID, description="The second run.")],
) -> ComparedRunsOut:
    """Compare the settings, data, results and newest samples of two runs."""
    found = compare_runs(session, a, b)
    return ComparedRunsOut.of(found, a=found.a.key, b=found.b.key, samples=found.pairs)


@router.get("/runs/{run_id}", Action.LOOK)
def get_run(run_id: Id, session: Reading) -> RunOut:
    """Get a run with its progress."""
    return run_out(session, service.get_run(session, run_id))


@router.patch(
    "/runs/{run_id}",
    Action.EDIT,
    responses=problems({409: "Settings of a run that has ended stay."}),
)
def change_run(run_id: Id, body: RunPatch, session: Writing) -> RunOut:
    """Rename or annotate a run, or change settings until it ends.

    While it trains, these change with its next step.
    """
    sent = body.model_dump(exclude_unset=True)
    settings = {name: sent.pop(name) for name in CHANGEABLE if name in sent}
    run = changing.change_description(session, run_id, **sent)
    if settings:
        run = changing.change_settings(session, run_id, settings)
    return run_out(session, run)


@router.post("/runs/{run_id}/cancel", Action.CONTROL, **CANCEL)
def cancel_run(run_id: Id, session: Writing) -> RunOut:
    """Cancel a run.

    At once while it waits, within a step while it trains. Canceling twice is no error.
    """
    return run_out(session, service.cancel_run(session, run_id))


@router.post("/runs/{run_id}/stop", Action.CONTROL, status_code=202, responses=NOT_RUNNING)
def stop_run(run_id: Id, session: Writing, body: StopIn = NO_CHOICE) -> RunOut:
    """End a training early and keep the adapter as it is."""
    run = stopping.request_stop(session, run_id, make_latest=body.make_latest)
    return run_out(session, run)


@router.post("/runs/{run_id}/sample", Action.CONTROL, status_code=202, responses=NOT_RUNNING)
def sample_run(run_id: Id, session: Writing) -> RunOut:
    """Generate samples at the next step."""
    return run_out(session, service.request_run_action(session, run_id, "sample"))


@router.post("/runs/{run_id}/save", Action.CONTROL, status_code=202, responses=NOT_RUNNING)
def save_run(run_id: Id, session: Writing) -> RunOut:
    """Save a checkpoint at the next step."""
    return run_out(session, service.request_run_action(session, run_id, "save"))


@router.get("/runs/{run_id}/metrics", Action.LOOK)
def get_run_metrics(
    run_id: Id,
    session: Reading,
    after: Annotated[
        int, Query(ge=0, le=MAX_ID, description="Only steps after this one: `last_step`.")
    ] = 0,
) -> MetricsOut:
    """Get the loss and other figures of a run, step by step."""
    service.get_run(session, run_id)
    return MetricsOut.model_validate(run_metrics(session, run_id, after=after))


@router.get("/runs/{run_id}/samples", Action.LOOK)
def list_run_samples(run_id: Id, session: Reading, part: Part) -> list[SampleOut]:
    """List the images generated during a run, by step and prompt."""
    epochs = run_epochs(session, service.get_run(session, run_id))
    found = service.run_samples(session, run_id)
    return [
        SampleOut.of(
            row,
            epoch=epochs.at(row.step),
            **image_urls(row.sha256),
        )
        for row in part.of(found, lambda row: (row.step, row.prompt_index))
    ]
