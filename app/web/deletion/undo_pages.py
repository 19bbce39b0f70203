"""Forms that delete what can be restored, with Undo."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from app.registry.deletion import runs
from app.registry.deletion.things import title_of
from app.registry.tables.runs import Run
from app.registry.wording import plural
from app.web.addresses import MAX_ADDRESS, own_address
from app.web.deletion.nouns import NOUNS, Act, Noun, SoftDelete
from app.web.form_reader import as_id
from app.web.forms import SentForm
from app.web.state import RunIds, State
from app.web.templates import redirect_with_notice

router = APIRouter(include_in_schema=False)
Back = Annotated[str, Query(max_length=MAX_ADDRESS)]


def _add_routes(noun: Noun, soft: SoftDelete) -> None:
    """Routes that delete and restore, then go `back`, by default to the list of the noun."""
    usual = noun.address.partition("/{")[0]
    deletion, restoration = noun.acting(soft.delete), noun.acting(soft.restore)

    def delete(request: Request, state: State, back: Back = usual, act: Act = deletion) -> Response:
        with state.database.write() as session:
            row = act(session)
            text = f"{title_of(session, row)} was deleted."
        undo = f"{noun.place(row, act)}/restore?{urlencode({'back': back})}"
        return redirect_with_notice(own_address(back), text, undo=undo, request=request)

    def restore(state: State, back: Back = usual, act: Act = restoration) -> Response:
        with state.database.write() as session:
            row = act(session)
            text = f"{title_of(session, row)} was restored."
        shown = soft.page.format(row)
        address = own_address(back) + shown if shown.startswith("#") else shown
        return redirect_with_notice(address, text)

    router.add_api_route(f"{noun.address}/delete", delete, methods=["POST"])
    router.add_api_route(f"{noun.address}/restore", restore, methods=["POST"])


for each in NOUNS:
    if each.soft and each.soft.page:
        _add_routes(each, each.soft)


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
    address = f"{own_address(back)}#run-{found[0].key}"
    return redirect_with_notice(address, f"{_counted(found)} restored.")


def _counted(found: list[Run]) -> str:
    return f"“{found[0].name}” was" if len(found) == 1 else f"{plural(len(found), 'run')} were"
