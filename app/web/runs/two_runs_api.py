"""REST: two runs side by side."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from app.registry.comparison.runs import compare_runs
from app.registry.comparison.side_by_side import PromptPair
from app.registry.db import MAX_ID
from app.registry.runs.settings import Difference
from app.registry.tables.runs import Sample
from app.web.problems import problems
from app.web.state import State

router = APIRouter()


class ComparedSamplesOut(BaseModel):
    """The newest samples of two runs or versions for a prompt; null where there is none."""

    caption: str = Field(description="The prompt and seed; both if they differ.")
    a_url: str | None = Field(description="Address of the first one's PNG.")
    b_url: str | None = Field(description="Address of the second one's PNG.")


class ComparedRunsOut(BaseModel):
    """Two runs side by side."""

    a: int = Field(description="The first run.")
    b: int = Field(description="The second run.")
    settings: list[Difference] = Field(description="The settings that differ.")
    data: list[Difference] = Field(description="What they were trained on, also where it is equal.")
    results: list[Difference] = Field(description="What came out, also where it is equal.")
    notes: list[str] = Field(description="What to know when comparing them, as sentences.")
    samples: list[ComparedSamplesOut] = Field(description="Empty unless both have samples.")


@router.get("/runs/compare", responses=problems({404: "One of the runs does not exist."}))
def compare_two_runs(
    state: State,
    a: Annotated[int, Query(ge=1, le=MAX_ID, description="The first run.")],
    b: Annotated[int, Query(ge=1, le=MAX_ID, description="The second run.")],
) -> ComparedRunsOut:
    """Compare the settings, data, results and newest samples of two runs."""
    with state.database.read() as session:
        found = compare_runs(session, a, b)
        return ComparedRunsOut(
            a=found.a.key,
            b=found.b.key,
            settings=found.settings,
            data=found.data,
            results=found.results,
            notes=found.notes,
            samples=[samples_out(pair) for pair in found.pairs],
        )


def samples_out(pair: PromptPair) -> ComparedSamplesOut:
    """A pair of samples as the API shows it."""
    return ComparedSamplesOut(caption=pair.caption, a_url=_url(pair.a), b_url=_url(pair.b))


def _url(sample: Sample | None) -> str | None:
    return f"/media/{sample.sha256}" if sample else None
