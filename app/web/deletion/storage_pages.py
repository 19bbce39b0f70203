"""The page of the storage: what takes the space, and how to free it."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.registry.blobs import latents
from app.registry.blobs.deletion import FreedSpace
from app.registry.deletion import datasets
from app.registry.deletion.renders import delete_deleted_renders
from app.registry.deletion.usage import FileKind, StorageUse, storage_use
from app.registry.storage.store import StorageUnavailable
from app.registry.wording import plural, size_text
from app.web.deletion import confirm
from app.web.deletion.removals import OfAllCheckpoints, OfRenders
from app.web.state import State
from app.web.templates import redirect_with_notice, render

router = APIRouter(include_in_schema=False)

STORAGE = "/storage"
MONTH_DAYS = 30
AGES = (
    (0, "At any time"),
    (1, "More than a day ago"),
    (7, "More than a week ago"),
    (MONTH_DAYS, "More than 30 days ago"),
)
COVERS = (("true", "Keep them"), ("false", "Delete them, the covers stay"))
KINDS: dict[FileKind, tuple[str, str, str, str]] = {
    FileKind.DATASETS: ("Images of datasets", "", "/datasets", "See datasets"),
    FileKind.ADAPTERS: ("Adapters and their downloads", "", "/adapters", "See adapters"),
    FileKind.CHECKPOINT_ADAPTERS: (
        "Adapters of checkpoints",
        "Each can be tried and used on the page of its run.",
        "/runs",
        "See runs",
    ),
    FileKind.SAMPLES: ("Samples of runs", "They go with their run.", "/runs", "See runs"),
    FileKind.RENDERS: ("Images of the playground", "", "#old-renders", "Delete"),
    FileKind.RUNNING: ("Training states of runs that go on", "They are needed.", "", ""),
    FileKind.CHECKPOINTS: (
        "Training states of runs that have ended",
        "Only needed to continue these runs.",
        "#old-checkpoints",
        "Delete",
    ),
    FileKind.PINNED: (
        "Images that runs were trained on",
        "They left their dataset, and go with the runs.",
        "/runs",
        "See runs",
    ),
    FileKind.DELETED_DATASETS: ("Deleted datasets", "", "/datasets/deleted", "Delete for good"),
    FileKind.DELETED_IMAGES: ("Deleted images", "", "/storage/images/delete", "Delete for good"),
    FileKind.DELETED_RENDERS: (
        "Deleted images of the playground",
        "",
        "/storage/deleted-renders/delete",
        "Delete for good",
    ),
    FileKind.DELETED_ADAPTERS: ("Deleted adapters", "", "/adapters/deleted", "Delete for good"),
    FileKind.JOBS: ("Uploads and fused files", "Kept for 7 days after their job.", "", ""),
    FileKind.UNUSED: ("Files that nothing needs", "The daily sweep removes them.", "", ""),
    FileKind.TRASH: (
        "Trash of the sweep",
        "Emptied automatically after 14 days.",
        "",
        "",
    ),
    FileKind.CACHE: (
        "Cache of encoded images",
        "Runs make it again.",
        "/storage/cache/delete",
        "Delete",
    ),
}


@dataclass(frozen=True)
class StorageRow:
    """A kind of files, with a remark and a way to free their space, where there is one."""

    use: StorageUse
    title: str
    remark: str
    href: str
    action: str


@dataclass(frozen=True)
class StoragePage:
    """What takes the space, the largest first; `free_bytes`: None if unknown.

    If the storage does not answer, `outage` is the reason, and nothing is known.
    """

    rows: list[StorageRow]
    used_bytes: int
    free_bytes: int | None
    ages: tuple[tuple[int, str], ...]
    covers: tuple[tuple[str, str], ...]
    month: int
    has_checkpoints: bool
    has_renders: bool
    outage: str


@router.get(STORAGE)
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
    files = {use.kind: use.files for use in uses}
    page = StoragePage(
        rows=[StorageRow(use, *KINDS[use.kind]) for use in uses if use.files],
        used_bytes=sum(use.size_bytes for use in uses),
        free_bytes=free_bytes,
        ages=AGES,
        covers=COVERS,
        month=MONTH_DAYS,
        has_checkpoints=files.get(FileKind.CHECKPOINTS, 0) > 0,
        has_renders=files.get(FileKind.RENDERS, 0) > 0,
        outage=outage,
    )
    return render(request, "deletion/storage.html", page)


@router.get("/storage/checkpoints/delete")
def ask_checkpoints(request: Request, removal: OfAllCheckpoints, state: State) -> Response:
    """Ask before the training states of runs that have ended are deleted."""
    return confirm.ask(request, state, removal, back=STORAGE)


@router.post("/storage/checkpoints/delete")
def delete_checkpoints(removal: OfAllCheckpoints, state: State) -> Response:
    """Delete the training states of runs that have ended."""
    return confirm.delete(state, removal, to=STORAGE)


@router.get("/storage/renders/delete")
def ask_renders(request: Request, removal: OfRenders, state: State) -> Response:
    """Ask before renders that have ended are deleted."""
    return confirm.ask(request, state, removal, back=STORAGE)


@router.post("/storage/renders/delete")
def delete_renders(removal: OfRenders, state: State) -> Response:
    """Delete renders that have ended."""
    return confirm.delete(state, removal, to=STORAGE)


@router.get("/storage/deleted-renders/delete")
def ask_deleted_renders(request: Request, state: State) -> Response:
    """Ask before the deleted images of the playground are deleted for good."""
    return confirm.ask(request, state, delete_deleted_renders, back=STORAGE)


@router.post("/storage/deleted-renders/delete")
def delete_renders_for_good(state: State) -> Response:
    """Delete the deleted images of the playground for good."""
    return confirm.delete(state, delete_deleted_renders, to=STORAGE)


@router.get("/storage/images/delete")
def ask_images(request: Request, state: State) -> Response:
    """Ask before the deleted images of all datasets are deleted for good."""
    return confirm.ask(request, state, datasets.delete_all_deleted_images, back=STORAGE)


@router.post("/storage/images/delete")
def delete_images(state: State) -> Response:
    """Delete the deleted images of all datasets for good."""
    return confirm.delete(state, datasets.delete_all_deleted_images, to=STORAGE)


@router.get("/storage/cache/delete")
def ask_cache(request: Request, state: State) -> Response:
    """Ask before the cache of encoded images of this machine is deleted."""
    files, size_bytes = latents.measure_cache(state.settings.data_dir)
    freed = FreedSpace(
        title="the cache of encoded images",
        goes=(plural(files, "file"),),
        stays=("Images stay. The next run on them encodes them again.",),
        files=files,
        size_bytes=size_bytes,
    )
    return confirm.show(request, freed, back=STORAGE)


@router.post("/storage/cache/delete")
def delete_cache(state: State) -> Response:
    """Delete the cache of encoded images, which needs neither the database nor free space."""
    freed = latents.empty_cache(state.settings.data_dir)
    return redirect_with_notice(STORAGE, f"Deleted the cache: {size_text(freed)} freed.")
