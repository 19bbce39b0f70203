"""The pages of the storage: what takes the space, and what is deleted and can be restored."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fastapi import Request
from starlette.responses import Response

from app.registry.actor import current_principal
from app.registry.datasets import service
from app.registry.deletion.things import DeletedKind, count_things, list_images, list_things
from app.registry.deletion.usage import FileKind, StorageUse, storage_use
from app.registry.paging import find_page
from app.registry.storage.store import StorageUnavailable
from app.web.access.needs import Action, Router
from app.web.deletion.nouns import DELETED, FOREVER
from app.web.state import PageNumber, Reading, State
from app.web.templates import render

router = Router(include_in_schema=False)

MONTH_DAYS = 30
AGES = (
    (0, "At any time"),
    (1, "More than a day ago"),
    (7, "More than a week ago"),
    (MONTH_DAYS, "More than 30 days ago"),
)
COVERS = (("true", "Keep them"), ("false", "Delete them, the covers stay"))
KINDS = {
    FileKind.DATASETS: ("Images of datasets", "", "/datasets"),
    FileKind.ADAPTERS: ("Adapters and their downloads", "", "/adapters"),
    FileKind.CHECKPOINT_ADAPTERS: (
        "Adapters of checkpoints",
        "Each can be tried and used on the page of its run.",
        "/runs",
    ),
    FileKind.SAMPLES: ("Samples of runs", "They go with their run or version.", "/runs"),
    FileKind.RENDERS: ("Images of the playground", "", "#old-renders"),
    FileKind.RUNNING: ("Training states of runs that go on", "They are needed.", ""),
    FileKind.CHECKPOINTS: (
        "Training states of runs that have ended",
        "Only needed to continue these runs.",
        "#old-checkpoints",
    ),
    FileKind.PINNED: (
        "Images that runs were trained on",
        "They left their dataset, and go with the runs.",
        "/runs",
    ),
    FileKind.DELETED_DATASETS: ("Deleted datasets", "", f"{DELETED}datasets"),
    FileKind.DELETED_IMAGES: ("Deleted images", "", f"{FOREVER}/images"),
    FileKind.DELETED_RENDERS: (
        "Deleted images of the playground",
        "",
        f"{FOREVER}/deleted-renders",
    ),
    FileKind.DELETED_ADAPTERS: ("Deleted adapters", "", f"{DELETED}adapters"),
    FileKind.DELETED_RUNS: ("Deleted runs", "", f"{DELETED}runs"),
    FileKind.DELETED_VERSIONS: ("Deleted versions and checkpoints", "", f"{DELETED}versions"),
    FileKind.JOBS: ("Uploads and fused files", "Kept for 7 days after their job.", ""),
    FileKind.UNUSED: ("Files that nothing needs", "The daily sweep removes them.", ""),
    FileKind.TRASH: ("Trash of the sweep", "Emptied automatically after 14 days.", ""),
    FileKind.CACHE: ("Cache of encoded images", "Runs make it again.", "/storage/cache/delete"),
}
"""The title of each kind, a remark, and the address where its space can be freed."""
LISTS = {"/datasets": "See datasets", "/adapters": "See adapters", "/runs": "See runs"}
TITLES = {
    DeletedKind.VERSIONS: "versions and checkpoints",
    DeletedKind.PROMPT_SETS: "prompt sets",
    DeletedKind.BLIND_TESTS: "blind tests",
}
WITH_IMAGES = (DeletedKind.ADAPTERS, DeletedKind.GRIDS, DeletedKind.RECIPES)


@dataclass(frozen=True)
class StorageRow:
    """A kind of files, with a remark and a way to free their space, where there is one."""

    use: StorageUse
    title: str
    remark: str
    href: str

    @property
    def action(self) -> str:
        """What the page of its address does, as the text of the link."""
        is_deleted = self.use.kind.startswith("deleted")
        return LISTS.get(self.href, "Delete for good" if is_deleted else "Delete")


@router.get("/storage", Action.LOOK)
def storage(request: Request, state: State) -> Response:
    """Show what takes the space, or why that is not known."""
    uses: list[StorageUse] = []
    free_bytes, outage = None, ""
    try:
        state.store.check_readable()  # a folder that is away would look empty
        uses = sorted(storage_use(state), key=lambda use: -use.size_bytes)
        free_bytes = state.store.free_bytes()
    except StorageUnavailable as error:
        outage = error.detail
    person, rows = current_principal(), [StorageRow(u, *KINDS[u.kind]) for u in uses if u.files]
    files = {use.kind: use.files for use in uses}
    if person is not None and person.is_limited:  # only administrators free all of a kind
        rows = [
            row if row.href in LISTS or row.href.startswith(DELETED) else replace(row, href="")
            for row in rows
        ]
        files = {}
    return render(
        request,
        "deletion/storage.html",
        rows=rows,
        used_bytes=sum(use.size_bytes for use in uses),
        free_bytes=free_bytes,
        ages=AGES,
        covers=COVERS,
        month=MONTH_DAYS,
        has_checkpoints=files.get(FileKind.CHECKPOINTS, 0) > 0,
        has_renders=files.get(FileKind.RENDERS, 0) > 0,
        outage=outage,
    )


@router.get("/storage/deleted", Action.LOOK)
def list_deleted(
    request: Request, session: Reading, kind: DeletedKind | None = None, page: PageNumber = 1
) -> Response:
    """List what is deleted, by default of the first kind that there is.

    A page number past the end shows the last page.
    """
    counts = count_things(session)
    kind = kind or next((one for one, number in counts.items() if number), DeletedKind.RUNS)
    found = find_page(lambda number: list_things(session, kind, page=number), page)
    return render(
        request,
        "deletion/deleted.html",
        title=TITLES.get(kind, kind),
        found=found,
        here=f"/storage/deleted?kind={kind}",
        with_images=kind in WITH_IMAGES,
        all_forever=f"{FOREVER}/runs" if kind is DeletedKind.RUNS else "",
        tabs=[(one, TITLES.get(one, one), number) for one, number in counts.items()],
        dataset=None,
        forever=FOREVER,
    )


@router.get("/datasets/deleted", Action.LOOK)
def list_datasets(request: Request, session: Reading, page: PageNumber = 1) -> Response:
    """List deleted datasets."""
    return list_deleted(request, session, DeletedKind.DATASETS, page)


@router.get("/adapters/deleted", Action.LOOK)
def list_adapters(request: Request, session: Reading, page: PageNumber = 1) -> Response:
    """List deleted adapters."""
    return list_deleted(request, session, DeletedKind.ADAPTERS, page)


@router.get("/datasets/{slug}/deleted", Action.LOOK)
def list_dataset_images(
    request: Request, slug: str, session: Reading, page: PageNumber = 1
) -> Response:
    """List the deleted images of a dataset."""
    dataset = service.dataset_by_slug(session, slug)
    found = find_page(lambda number: list_images(session, dataset, page=number), page)
    return render(
        request,
        "deletion/deleted.html",
        title="images",
        found=found,
        here=f"/datasets/{slug}/deleted",
        with_images=True,
        all_forever=f"{FOREVER}/datasets/{slug}/images",
        tabs=(),
        dataset=dataset,
        forever=FOREVER,
    )
