"""The page that compares two runs."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.registry.comparison.runs import TwoRuns, compare_runs, runs_to_choose, usual_pair
from app.registry.errors import NotFound
from app.web.comparison import ComparedPrompt, compared_prompts
from app.web.state import OptionalId, State
from app.web.templates import render

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class CompareRunsPage:
    """Two runs side by side and the runs to choose from; `problem` says why there are not two."""

    found: TwoRuns | None
    problem: str
    options: list[tuple[int, str]]
    a: int | None
    b: int | None
    images: list[ComparedPrompt]


@router.get("/runs/compare")
def compare(request: Request, state: State, a: OptionalId = None, b: OptionalId = None) -> Response:
    """Compare two runs; a run that was not named is chosen, one that does not exist is named."""
    found, problem = None, ""
    with state.database.read() as session:
        a, b = usual_pair(session, a, b)
        runs = runs_to_choose(session, a, b)
        if a is None or b is None:
            problem = "There is no other run to compare with yet."
        else:
            try:
                found = compare_runs(session, a, b)
            except NotFound as error:
                problem = error.detail
    context = CompareRunsPage(
        found=found,
        problem=problem,
        options=[(run.key, f"{run.key}: {run.name}") for run in runs],
        a=a,
        b=b,
        images=compared_prompts(found) if found else [],
    )
    is_missing = found is None and a is not None and b is not None
    return render(request, "runs/compare_runs.html", context, status=404 if is_missing else 200)
