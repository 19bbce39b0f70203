"""The page that lists runs: search, filters, sort orders, and what is done with chosen runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.registry.deletion import lists as deleted
from app.registry.job_kinds.states import JobStatus
from app.registry.paging import find_page
from app.registry.runs.listing import (
    STATUS_ORDER,
    RunChoices,
    RunFilter,
    RunPage,
    RunSort,
    list_runs,
    run_choices,
)
from app.registry.tables.runs import Run
from app.web.addresses import ListLinks, own_address
from app.web.form_reader import as_id
from app.web.state import Back, PageNumber, RunIds, State, Words
from app.web.templates import redirect_with_notice, render

router = APIRouter(include_in_schema=False)

STATUS_WORDS: dict[str, str] = {
    JobStatus.RUNNING: "Training",
    JobStatus.QUEUED: "Waiting",
    JobStatus.PAUSED: "Paused",
    JobStatus.SUCCEEDED: "Finished",
    JobStatus.FAILED: "Failed",
    JobStatus.CANCELED: "Canceled",
}
SORTS = {
    RunSort.NEWEST: "Newest first",
    RunSort.OLDEST: "Oldest first",
    RunSort.NAME: "Name, A to Z",
    RunSort.NAME_DOWN: "Name, Z to A",
    RunSort.STATUS: "State",
    RunSort.LOSS: "Lowest loss",
    RunSort.LONGEST: "Longest time",
    RunSort.SHORTEST: "Shortest time",
}


def run_links(filters: RunFilter) -> ListLinks:
    """Addresses of the list with changed filters."""
    values = {
        "q": filters.q,
        "status": filters.status,
        "dataset": filters.dataset_id,
        "base": filters.base_model_id,
        "adapter": filters.adapter_id,
        "sort": "" if filters.sort is RunSort.NEWEST else filters.sort.value,
    }
    return ListLinks("/runs", values, kept=("sort",), page=filters.page)


@dataclass(frozen=True)
class RunsPage:
    """The list of runs."""

    found: RunPage
    filters: RunFilter
    links: ListLinks
    choices: RunChoices
    counts: dict[str, int]
    words: dict[str, str]
    sorts: list[tuple[str, str]]
    has_deleted: bool


@router.get("/runs")
def runs(
    request: Request,
    state: State,
    q: Words = "",
    status: Words = "",
    dataset: Words = "",
    base: Words = "",
    adapter: Words = "",
    sort: Words = "",
    page: PageNumber = 1,
) -> Response:
    """List runs, newest first by default; a page number past the end shows the last page."""
    filters = RunFilter(
        q=q.strip(),
        status=status if status in set(JobStatus) else "",
        dataset_id=as_id(dataset),
        base_model_id=as_id(base),
        adapter_id=as_id(adapter),
        sort=RunSort(sort) if sort in set(RunSort) else RunSort.NEWEST,
        page=page,
    )
    with state.database.read() as session:
        found = find_page(lambda number: list_runs(session, replace(filters, page=number)), page)
        filters = replace(filters, page=found.number)
        choices = run_choices(session, filters)
        has_deleted = deleted.has_deleted(session, Run)
    context = RunsPage(
        found=found,
        filters=filters,
        links=run_links(filters),
        choices=choices,
        counts={
            status: found.counts.get(status, 0)
            for status in STATUS_ORDER
            if found.everything.get(status)
        },
        words=STATUS_WORDS,
        sorts=[(sort.value, words) for sort, words in SORTS.items()],
        has_deleted=has_deleted,
    )
    return render(request, "runs/index.html", context)


@router.get("/runs/compare-chosen")
def compare_chosen(
    run: RunIds = [],  # noqa: B006  (FastAPI copies it)
    back: Back = "/runs",
) -> Response:
    """Compare the two chosen runs, the older one first; say so if it is another number."""
    keys = sorted(set(run))
    if len(keys) != 2:
        return redirect_with_notice(own_address(back), "Choose two runs to compare.")
    return RedirectResponse(f"/runs/compare?a={keys[0]}&b={keys[1]}", status_code=303)
