"""Pages that say what deleting for good removes and frees, and ask for it.

`CONFIRMATIONS` is the table of what can be deleted on a page; a loop makes the routes. The cache of
encoded images has routes of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app.registry.blobs import deletion as freeing
from app.registry.blobs import latents
from app.registry.blobs.deletion import FreedSpace
from app.registry.errors import Conflict
from app.registry.state import AppState
from app.registry.wording import plural, size_text
from app.web.deletion import removals
from app.web.deletion.api import FOREVER, NOUNS
from app.web.deletion.removals import Removal
from app.web.state import State
from app.web.templates import redirect_with_notice, render

router = APIRouter(include_in_schema=False)

RUNS, RUN = "/runs", "/runs/{run_id}"
RENDER, PLAYGROUND = "/renders/{render_id}", "/play"
DATASET, IMAGES = "/datasets/{slug}", "/datasets/{slug}/deleted"
STORAGE, DELETED = "/storage", "/storage/deleted?kind="
LISTED = {
    **dict.fromkeys(("run", "deleted_runs"), f"{DELETED}runs"),
    **dict.fromkeys(("version", "checkpoint"), f"{DELETED}versions"),
    "preset": f"{DELETED}presets",
    "adapter": "/adapters/deleted",
    "dataset": "/datasets/deleted",
}
"""The list of what is deleted that the confirmation of each noun leads back to."""


@dataclass(frozen=True)
class Confirmation:
    """A page that asks before something is deleted for good; its form posts to the same address.

    `removal`: a dependency. `back` and `to`: the addresses that the page leads to if it is kept
    and once it is deleted, with the path parameters of `address`.
    """

    address: str
    removal: Callable[..., Removal]
    back: str
    to: str


CONFIRMATIONS = (
    *(
        Confirmation(f"{FOREVER}{noun.address}", noun.final, back=listed, to=listed)
        for noun in NOUNS
        if (listed := LISTED.get(noun.noun))
    ),
    Confirmation(f"{RUN}/checkpoints/delete", removals.of_checkpoints, back=RUN, to=RUN),
    Confirmation(f"{RENDER}/delete", removals.of_render, back=RENDER, to=PLAYGROUND),
    Confirmation(f"{IMAGES}/delete", removals.of_images, back=IMAGES, to=DATASET),
    Confirmation(f"{IMAGES}/{{image_id}}/delete", removals.of_image, back=IMAGES, to=IMAGES),
    *(
        Confirmation(f"{STORAGE}/{kind}/delete", removal, back=STORAGE, to=STORAGE)
        for kind, removal in (
            ("checkpoints", removals.of_all_checkpoints),
            ("renders", removals.of_renders),
            ("deleted-renders", removals.of_deleted_renders),
            ("images", removals.of_all_images),
        )
    ),
)


@dataclass(frozen=True)
class Alternative:
    """Another way to delete the same, as a link in words."""

    href: str
    words: str


@dataclass(frozen=True)
class ConfirmPage:
    """The effect of a deletion; None if it is impossible now, with the reason in `refused`."""

    freed: FreedSpace | None
    refused: str
    back: str
    alternative: Alternative | None


def _add_routes(page: Confirmation) -> None:
    def ask(request: Request, state: State, removal: Removal = Depends(page.removal)) -> Response:
        return _ask(request, state, removal, back=page.back.format_map(request.path_params))

    def delete(
        request: Request, state: State, removal: Removal = Depends(page.removal)
    ) -> Response:
        return _delete(state, removal, to=page.to.format_map(request.path_params))

    router.add_api_route(page.address, ask, methods=["GET"])
    router.add_api_route(page.address, delete, methods=["POST"])


for confirmation in CONFIRMATIONS:
    _add_routes(confirmation)


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
    return render(request, "deletion/confirm.html", ConfirmPage(freed, "", STORAGE, None))


@router.post("/storage/cache/delete")
def delete_cache(state: State) -> Response:
    """Delete the cache of encoded images, which needs neither the database nor free space."""
    freed = latents.empty_cache(state.settings.data_dir)
    return redirect_with_notice(STORAGE, f"Deleted the cache: {size_text(freed)} freed.")


def _ask(request: Request, state: AppState, removal: Removal, *, back: str) -> Response:
    try:
        freed = freeing.preview(state, removal)
    except Conflict as conflict:
        page = ConfirmPage(None, conflict.detail, back, None)
        return render(request, "deletion/confirm.html", page, status=conflict.status)
    page = ConfirmPage(freed, "", back, _alternative(request, state, removal, freed))
    return render(request, "deletion/confirm.html", page)


def _alternative(
    request: Request, state: AppState, removal: Removal, freed: FreedSpace
) -> Alternative | None:
    """The same deletion with or without runs; None if it has no such choice or that is the same.

    Also None if one of the runs has not ended.
    """
    with_runs = removal.keywords.get("with_runs")
    if with_runs is None:
        return None
    if with_runs:
        return Alternative(request.url.path, "Keep the runs, with the images they need")
    try:
        together = freeing.preview(state, partial(removal, with_runs=True))
    except Conflict:
        return None
    if together == freed:
        return None
    words = f"Delete these runs too, which frees {size_text(together.size_bytes)} in all"
    return Alternative(f"{request.url.path}?with_runs=true", words)


def _delete(state: AppState, removal: Removal, *, to: str) -> Response:
    """Delete for good, then go to this page, which says so."""
    freed = freeing.delete(state, removal)
    return redirect_with_notice(to, f"Deleted {freed.title}: {size_text(freed.size_bytes)} freed.")
