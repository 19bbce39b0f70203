"""Pages that say what deleting for good removes and frees, and ask for it.

The routes of nouns have the addresses of the API. The cache of encoded images has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from app.registry.blobs import deletion as freeing
from app.registry.blobs import latents
from app.registry.blobs.deletion import Deletion, FreedSpace
from app.registry.deletion import datasets, renders
from app.registry.errors import Conflict
from app.registry.state import AppState
from app.registry.wording import plural, size_text
from app.web.deletion.nouns import DELETED, FOREVER, NOUNS, Acting, Removal
from app.web.state import State
from app.web.templates import redirect_with_notice, render

router = APIRouter(include_in_schema=False)

STORAGE = "/storage"
RENDER, DATASET = "/renders/{render_id}", "/datasets/{dataset_id}"
IMAGES = f"{DATASET}/deleted"
NEXT = {
    **dict.fromkeys(("run", "deleted_runs"), f"{DELETED}runs"),
    **dict.fromkeys(("version", "checkpoint"), f"{DELETED}versions"),
    **{noun: f"{DELETED}{noun}s" for noun in ("adapter", "dataset", "grid", "recipe", "preset")},
    "checkpoints": "/runs/{run_id}",
    **dict.fromkeys(("deleted_images", "deleted_renders", "renders", "all_checkpoints"), STORAGE),
}
"""The page that the question about each noun leads to."""


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


def _add_routes(address: str, remove: Callable[..., Deletion], back: str, to: str) -> None:
    """A page that asks first, at an address that its form posts to.

    It leads `back` if the thing is kept, else `to` what follows: with the parts of the address.
    """
    removal = Depends(Acting(address, remove))

    def ask(request: Request, state: State, act: Removal = removal) -> Response:
        return _ask(request, state, act, back=back.format_map(request.path_params))

    def delete(request: Request, state: State, act: Removal = removal) -> Response:
        freed = freeing.delete(state, act)
        text = f"Deleted {freed.title}: {size_text(freed.size_bytes)} freed."
        return redirect_with_notice(to.format_map(request.path_params), text)

    router.add_api_route(address, ask, methods=["GET"])
    router.add_api_route(address, delete, methods=["POST"])


for noun in NOUNS:
    if following := NEXT.get(noun.noun):
        _add_routes(FOREVER + noun.address, noun.remove, following, following)
_add_routes(FOREVER + RENDER, renders.delete_render, RENDER, "/play")
_add_routes(f"{FOREVER}{DATASET}/images", datasets.delete_deleted_images, IMAGES, DATASET)
_add_routes(f"{FOREVER}{DATASET}/images/{{image_id}}", datasets.delete_image, IMAGES, IMAGES)


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
