"""Pages that ask before deleting for good, and forms that delete what can be restored, with Undo.

The routes of nouns have the addresses of the API. The cache of encoded images has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlencode

from fastapi import Depends, Request
from starlette.responses import Response

from app.registry.blobs import deletion as freeing
from app.registry.blobs import latents
from app.registry.blobs.deletion import Deletion, FreedSpace
from app.registry.deletion import datasets, renders, runs
from app.registry.deletion.things import title_of
from app.registry.errors import Conflict
from app.registry.state import AppState
from app.registry.tables.runs import Run
from app.registry.wording import plural, size_text
from app.web.access.needs import Action, Router
from app.web.addresses import own_address
from app.web.deletion.nouns import DELETED, FOREVER, NOUNS, Act, Acting, Noun, Removal, SoftDelete
from app.web.form_reader import as_id
from app.web.forms import SentForm
from app.web.state import Back, RunIds, State, Writing
from app.web.templates import redirect_with_notice, render

router = Router(include_in_schema=False)

STORAGE = "/storage"
RENDER, DATASET = "/renders/{render_id}", "/datasets/{dataset_id}"
IMAGES = f"{DATASET}/deleted"
NEXT = {
    **dict.fromkeys(("run", "deleted_runs"), f"{DELETED}runs"),
    **dict.fromkeys(("version", "checkpoint"), f"{DELETED}versions"),
    **{noun: f"{DELETED}{noun}s" for noun in ("adapter", "dataset", "grid", "recipe", "preset")},
    **{noun: f"{DELETED}{noun}s" for noun in ("prompt_set", "blind_test")},
    "sweep": f"{DELETED}sweeps",
    "sweep_others": "/sweeps/{sweep_id}",
    "checkpoints": "/runs/{run_id}",
    **dict.fromkeys(("deleted_images", "deleted_renders", "renders", "all_checkpoints"), STORAGE),
}
"""The page that the question about each noun leads to."""


@dataclass(frozen=True)
class ConfirmPage:
    """The effect of a deletion; None if it is impossible now, with the reason in `refused`."""

    freed: FreedSpace | None
    refused: str
    back: str
    alternative: tuple[str, str] | None


def _add_routes(
    address: str, remove: Callable[..., Deletion], back: str, to: str, action: Action = Action.OWN
) -> None:
    """A page that asks first, at an address that its form posts to.

    It leads `back` if the thing is kept, else `to` what follows: with the parts of the address.
    """
    removal = Depends(Acting(address, remove))

    @router.get(address, action)
    def ask(request: Request, state: State, act: Removal = removal) -> Response:
        return _ask(request, state, act, back=back.format_map(request.path_params))

    @router.post(address, action)
    def delete(request: Request, state: State, act: Removal = removal) -> Response:
        freed = freeing.delete(state, act)
        text = f"Deleted {freed.title}: {size_text(freed.size_bytes)} freed."
        return redirect_with_notice(to.format_map(request.path_params), text)


for noun in NOUNS:
    if following := NEXT.get(noun.noun):
        _add_routes(FOREVER + noun.address, noun.remove, following, following, noun.action)
_add_routes(FOREVER + RENDER, renders.delete_render, RENDER, "/play")
_add_routes(f"{FOREVER}{DATASET}/images", datasets.delete_deleted_images, IMAGES, DATASET)
_add_routes(f"{FOREVER}{DATASET}/images/{{image_id}}", datasets.delete_image, IMAGES, IMAGES)


@router.get("/storage/cache/delete", Action.ADMIN)
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


@router.post("/storage/cache/delete", Action.ADMIN)
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
) -> tuple[str, str] | None:
    """The link to the same deletion with or without runs, and its words.

    None if it has no such choice, if that is the same, or if one of the runs has not ended.
    """
    with_runs = removal.keywords.get("with_runs")
    if with_runs is None:
        return None
    if with_runs:
        return request.url.path, "Keep the runs, with the images they need"
    try:
        together = freeing.preview(state, partial(removal, with_runs=True))
    except Conflict:
        return None
    if together == freed:
        return None
    words = f"Delete these runs too, which frees {size_text(together.size_bytes)} in all"
    return f"{request.url.path}?with_runs=true", words


def _add_undo_routes(noun: Noun, soft: SoftDelete) -> None:
    """Routes that delete and restore, then go `back`, by default to the list of the noun."""
    usual = noun.address.partition("/{")[0]
    deletion, restoration = noun.acting(soft.delete), noun.acting(soft.restore)

    @router.post(f"{noun.address}/delete", noun.action)
    def delete(request: Request, state: State, back: Back = usual, act: Act = deletion) -> Response:
        with state.database.write() as session:
            row = act(session)
            text = f"{title_of(session, row)} was deleted."
        undo = f"{noun.place(row, act)}/restore?{urlencode({'back': back})}"
        return redirect_with_notice(own_address(back), text, undo=undo, request=request)

    @router.post(f"{noun.address}/restore", noun.action)
    def restore(state: State, back: Back = usual, act: Act = restoration) -> Response:
        with state.database.write() as session:
            row = act(session)
            text = f"{title_of(session, row)} was restored."
        shown = soft.page.format(row)
        address = own_address(back) + shown if shown.startswith("#") else shown
        return redirect_with_notice(address, text)


for each in NOUNS:
    if each.soft and each.soft.page:
        _add_undo_routes(each, each.soft)


@router.post("/runs/delete", Action.BULK)
def delete_runs(session: Writing, sent: SentForm) -> Response:
    """Delete the chosen runs, with Undo."""
    back = own_address(str(sent.get("back", "/runs")))
    keys = [key for one in sent.getlist("run") if (key := as_id(str(one)))]
    if not keys:
        return redirect_with_notice(back, "Choose the runs to delete.")
    gone, refused = runs.each_run(session, keys, runs.discard_run)
    text = " ".join((f"{_counted(gone)} deleted.", *refused))
    undo = urlencode([("run", one.key) for one in gone] + [("back", back)])
    return redirect_with_notice(back, text, undo=f"/runs/restore?{undo}")


@router.post("/runs/restore", Action.BULK)
def restore_runs(session: Writing, run: RunIds, back: Back) -> Response:
    """Restore runs."""
    found, _ = runs.each_run(session, run, runs.restore_run)
    address = f"{own_address(back)}#run-{found[0].key}"
    return redirect_with_notice(address, f"{_counted(found)} restored.")


def _counted(found: list[Run]) -> str:
    return f"“{found[0].name}” was" if len(found) == 1 else f"{plural(len(found), 'run')} were"
