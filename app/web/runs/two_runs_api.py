"""REST: two runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from app.registry.comparison.runs import compare_runs
from app.registry.comparison.side_by_side import PromptPair
from app.registry.db import MAX_ID
from app.registry.runs.settings import Difference
from app.registry.tables.runs import Sample
from app.web.answers import Answer
from app.web.problems import problems
from app.web.state import Reading, SessionRoute

router = APIRouter(route_class=SessionRoute)


class ComparedSamplesOut(Answer):
    """The newest samples of two runs or versions for a prompt; null where there is none."""

    caption: str = Field(description="The prompt and seed; both if they differ.")
    a_url: str | None = Field(description="Address of the first one's PNG.")
    b_url: str | None = Field(description="Address of the second one's PNG.")


class ComparedRunsOut(Answer):
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
    session: Reading,
    a: Annotated[int, Query(ge=1, le=MAX_ID, description="The first run.")],
    b: Annotated[int, Query(ge=1, le=MAX_ID, description="The second run.")],
) -> ComparedRunsOut:
    """Compare the settings, data, results and newest samples of two runs."""
    found = compare_runs(session, a, b)
    samples = samples_out(found.pairs)
    return ComparedRunsOut.of(found, a=found.a.key, b=found.b.key, samples=samples)


def samples_out(pairs: Sequence[PromptPair]) -> list[ComparedSamplesOut]:
    """Pairs of samples as the API shows them."""
    return [ComparedSamplesOut.of(pair, a_url=_url(pair.a), b_url=_url(pair.b)) for pair in pairs]


def _url(sample: Sample | None) -> str | None:
    return f"/media/{sample.sha256}" if sample else None
