"""Forms that delete runs, checkpoints, versions and presets, with Undo."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from app.registry.deletion import runs, versions
from app.registry.runs import own_presets
from app.registry.tables.runs import Run
from app.registry.wording import plural
from app.web.addresses import MAX_ADDRESS, own_address
from app.web.deletion.api import NOUNS, SOFT_DELETES, Noun, SoftDelete
from app.web.deletion.removals import Removal
from app.web.form_reader import as_id
from app.web.forms import SentForm
from app.web.state import RunIds, State
from app.web.templates import redirect_with_notice

router = APIRouter(include_in_schema=False)
Back = Annotated[str, Query(max_length=MAX_ADDRESS)]


RESTORES: dict[str, Callable[..., object]] = {
    "run": runs.restore_run,
    "checkpoint": runs.restore_checkpoint,
    "version": versions.restore_version,
    "preset": own_presets.restore_preset,
}
"""The undo of the nouns that pages delete and restore in one way, with a removal's keywords."""


def _add_routes(noun: Noun, soft: SoftDelete, undo: Callable[..., object]) -> None:
    def delete(state: State, back: Back, final: Removal = Depends(noun.final)) -> Response:
        with state.database.write() as session:
            soft.delete(session, **final.keywords)
        place = noun.address.format_map(final.keywords)
        address = f"{place}/restore?{urlencode({'back': back})}"
        text = f"The {noun.noun} was deleted."
        return redirect_with_notice(own_address(back), text, undo=address)

    def restore(state: State, back: Back, final: Removal = Depends(noun.final)) -> Response:
        with state.database.write() as session:
            undo(session, **final.keywords)
        return redirect_with_notice(own_address(back), f"The {noun.noun} was restored.")

    router.add_api_route(f"{noun.address}/delete", delete, methods=["POST"])
    router.add_api_route(f"{noun.address}/restore", restore, methods=["POST"])


for each in NOUNS:
    if each.noun in RESTORES:
        _add_routes(each, SOFT_DELETES[each.noun], RESTORES[each.noun])


@router.post("/runs/delete")
def delete_runs(state: State, sent: SentForm) -> Response:
    """Delete the chosen runs, with Undo."""
    back = own_address(str(sent.get("back", "/runs")))
    keys = [key for one in sent.getlist("run") if (key := as_id(str(one)))]
    if not keys:
        return redirect_with_notice(back, "Choose the runs to delete.")
    with state.database.write() as session:
        gone, refused = runs.each_run(session, keys, runs.discard_run)
    text = " ".join((f"{_counted(gone)} deleted.", *refused))
    undo = urlencode([("run", one.key) for one in gone] + [("back", back)])
    return redirect_with_notice(back, text, undo=f"/runs/restore?{undo}")


@router.post("/runs/restore")
def restore_runs(state: State, run: RunIds, back: Back) -> Response:
    """Restore runs."""
    with state.database.write() as session:
        found, _ = runs.each_run(session, run, runs.restore_run)
    return redirect_with_notice(own_address(back), f"{_counted(found)} restored.")


def _counted(found: list[Run]) -> str:
    return f"“{found[0].name}” was" if len(found) == 1 else f"{plural(len(found), 'run')} were"
