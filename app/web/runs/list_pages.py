"""Pages of several runs: the list with its search and filters, and two of them side by side."""

from __future__ import annotations

from dataclasses import replace

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from app.registry.comparison.runs import compare_runs, runs_to_choose, usual_pair
from app.registry.deletion import lists as deleted
from app.registry.errors import NotFound
from app.registry.job_kinds.states import JobStatus
from app.registry.paging import find_page
from app.registry.people.whose import only
from app.registry.runs.listing import STATUS_ORDER, RunFilter, RunSort, list_runs, run_choices
from app.registry.tables.runs import Run
from app.web.access.needs import Action, Router
from app.web.addresses import ListLinks, own_address
from app.web.comparison import compared_prompts
from app.web.form_reader import as_id
from app.web.state import Back, OptionalId, PageNumber, Reading, RunIds, Words
from app.web.templates import redirect_with_notice, render

router = Router(include_in_schema=False)

STATUS_WORDS: dict[str, str] = {
    JobStatus.RUNNING: "Training",
    JobStatus.QUEUED: "Waiting",
    JobStatus.PAUSED: "Paused",
    JobStatus.SUCCEEDED: "Finished",
    JobStatus.FAILED: "Failed",
    JobStatus.CANCELED: "Canceled",
}


def run_links(filters: RunFilter, whose: str = "") -> ListLinks:
    """Addresses of the list with changed filters."""
    values = {
        "q": filters.q,
        "status": filters.status,
        "dataset": filters.dataset_id,
        "base": filters.base_model_id,
        "adapter": filters.adapter_id,
        "sweep": filters.sweep_id,
        "whose": whose,
        "sort": "" if filters.sort is RunSort.NEWEST else filters.sort.value,
    }
    return ListLinks("/runs", values, kept=("sort",), page=filters.page)


@router.get("/runs", Action.LOOK)
def runs(
    request: Request,
    session: Reading,
    q: Words = "",
    status: Words = "",
    dataset: Words = "",
    base: Words = "",
    adapter: Words = "",
    sweep: Words = "",
    sort: Words = "",
    whose: Words = "",
    page: PageNumber = 1,
) -> Response:
    """List runs, newest first by default; a page number past the end shows the last page."""
    filters = RunFilter(
        q=q.strip(),
        status=status if status in set(JobStatus) else "",
        dataset_id=as_id(dataset),
        base_model_id=as_id(base),
        adapter_id=as_id(adapter),
        sweep_id=as_id(sweep),
        sort=RunSort(sort) if sort in set(RunSort) else RunSort.NEWEST,
        page=page,
    )
    with only(session, Run, whose):
        found = find_page(lambda number: list_runs(session, replace(filters, page=number)), page)
    filters = replace(filters, page=found.number)
    choices = run_choices(session, filters)
    has_deleted = deleted.has_deleted(session, Run)
    return render(
        request,
        "runs/index.html",
        found=found,
        filters=filters,
        links=run_links(filters, whose),
        whose=whose,
        choices=choices,
        counts={
            status: found.counts.get(status, 0)
            for status in STATUS_ORDER
            if found.everything.get(status)
        },
        words=STATUS_WORDS,
        sorts=[(sort.value, sort.label) for sort in RunSort],
        has_deleted=has_deleted,
    )


@router.get("/runs/compare-chosen", Action.LOOK)
def compare_chosen(
    run: RunIds = [],  # noqa: B006  (FastAPI copies it)
    back: Back = "/runs",
) -> Response:
    """Compare the two chosen runs, the older one first; say so if it is another number."""
    keys = sorted(set(run))
    if len(keys) != 2:
        return redirect_with_notice(own_address(back), "Choose two runs to compare.")
    return RedirectResponse(f"/runs/compare?a={keys[0]}&b={keys[1]}", status_code=303)


@router.get("/runs/compare", Action.LOOK)
def compare(
    request: Request, session: Reading, a: OptionalId = None, b: OptionalId = None
) -> Response:
    """Compare two runs; a run that was not named is chosen, one that does not exist is named."""
    found, problem = None, ""
    a, b = usual_pair(session, a, b)
    runs = runs_to_choose(session, a, b)
    if a is None or b is None:
        problem = "There is no other run to compare with yet."
    else:
        try:
            found = compare_runs(session, a, b)
        except NotFound as error:
            problem = error.detail
    is_missing = found is None and a is not None and b is not None
    return render(
        request,
        "runs/compare_runs.html",
        found=found,
        problem=problem,
        options=[(run.key, f"{run.key}: {run.name}") for run in runs],
        a=a,
        b=b,
        images=compared_prompts(found) if found else [],
        status=404 if is_missing else 200,
    )
