"""What the JSON columns of a sweep hold: its plan, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.registry.tables.runs import Stage, Sweep

Measured = Annotated[float, AfterValidator(lambda value: round(value, 4))]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Configuration(_Record):
    """The settings that one configuration has of its own, and their words."""

    name: str
    settings: dict[str, Any]


class Cost(_Record):
    """What a sweep takes, or a part of it."""

    runs: int = Field(description="Number of runs.")
    images: int = Field(description="Number of images that are measured.")
    seconds: float | None = Field(None, description="Time; null: not known.")
    size_bytes: int | None = Field(None, description="Size of the files; null: not known.")


class SweepPlan(_Record):
    """What is trained and drawn.

    `name`: of the adapter. `halves`: half of the configurations go on from half of their steps.
    `prompts`, each of the subject at its place, rank; `confirm_prompts` confirm. `cost`: as it was
    expected.
    """

    name: str
    configurations: tuple[Configuration, ...]
    seeds: tuple[int, ...]
    halves: bool
    subjects: tuple[str, ...]
    prompts: tuple[str, ...]
    confirm_subjects: tuple[str, ...]
    confirm_prompts: tuple[str, ...]
    cost: Cost


class Score(_Record):
    """The images of a run at a step: style and adherence, `parts` of the style by prompt.

    `ruined`: why it is not to be kept; empty if nothing is wrong. `column`: in `grid_id`, from 0.
    """

    run_id: int
    place: int
    seed: int
    step: int
    style: Measured
    parts: tuple[Measured, ...]
    adherence: Measured | None = None
    ruined: str = ""
    grid_id: int
    column: int


class Confirmation(_Record):
    """The first two with a seed and prompts that did not choose them."""

    seed: int = Field(description="The training seed.")
    difference: Measured = Field(description="How far the first is ahead.")
    low: Measured | None = Field(description="Low end of its interval over the prompts.")
    high: Measured | None = Field(description="High end of that.")


class Found(_Record):
    """What the last comparison said."""

    order: tuple[int, ...] = Field(description="Places of configurations, the best first.")
    equal: tuple[int, ...] = Field(description="Those that cannot be told from the best one.")
    gap: Measured = Field(description="Difference in style between the first two.")
    spread: Measured = Field(description="Standard deviation that another seed brings, pooled.")
    half: Measured = Field(description="Half of the interval of 95 % of each mean.")
    least: Measured = Field(description="Difference from which on two are told apart.")
    more_seeds: int = Field(description="How many more seeds of each would find `finds`.")
    finds: float = Field(description="A difference that eyes hardly see.")
    cost: Cost = Field(description="What these seeds would take.")


class SweepResult(_Record):
    """What was measured so far, by stage, and what was found.

    `going`: places of the configurations that went on, `left_out`: why others did not, by place.
    `looks`: how often they were compared. `reason`: what was found, as sentences. `not_measured`:
    why the style cannot be. `retried`: the job that failed before a person let it go on.
    """

    scores: dict[Stage, tuple[Score, ...]] = {}
    going: tuple[int, ...] = ()
    left_out: dict[int, str] = {}
    looks: int = 0
    found: Found | None = None
    confirmation: Confirmation | None = None
    confirm_seed: int | None = None
    winner: int | None = None
    reason: str = ""
    eyes: str = ""
    not_measured: str = ""
    retried: int | None = None

    def of(self, stage: Stage) -> Mapping[int, Score]:
        """The scores of a stage by run."""
        return {score.run_id: score for score in self.scores.get(stage, ())}


def read_plan(sweep: Sweep) -> SweepPlan:
    """The plan of a sweep."""
    return SweepPlan.model_validate(sweep.plan)


def read_result(sweep: Sweep) -> SweepResult:
    """The result of a sweep so far."""
    return SweepResult.model_validate(sweep.result)
