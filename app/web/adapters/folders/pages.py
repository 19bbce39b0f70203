"""The page of the folders of other programs: adapters kept there, and files to import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

from fastapi import Form, Query, Request
from starlette.responses import RedirectResponse, Response

from app.registry.adapters import folders, service
from app.registry.adapters.folders import FolderUnusable, KeptAdapter
from app.registry.adapters.versions.aliases import alias_numbers
from app.registry.db import Session
from app.registry.state import AppState
from app.registry.tables.adapters import LATEST
from app.web.access.needs import Action, Router
from app.web.state import Reading, Slug, State, Writing
from app.web.templates import redirect_with_notice, render

router = Router(include_in_schema=False)

Words = Annotated[str, Form(max_length=140)]
Names = Annotated[list[Annotated[str, Form(max_length=1_000)]], Form(max_length=100)]


@dataclass(frozen=True)
class Folder:
    """A folder of the settings; `problem`: why its other files are unknown."""

    name: str
    path: Path
    kept: list[KeptAdapter]
    files: list[str]
    problem: str


def read_folders(session: Session, state: AppState) -> list[Folder]:
    """The folders of the settings with what is in them."""
    found = []
    for name, path in state.settings.export_folder_paths.items():
        files, problem = [], ""
        try:
            files = folders.other_files(session, state.settings, name)
        except FolderUnusable as error:
            problem = error.detail
        kept = folders.list_kept(session, name)
        found.append(Folder(name, path, kept, files, problem))
    return found


@router.get("/folders", Action.ADMIN)
def show(
    request: Request,
    state: State,
    session: Reading,
    adapter: Annotated[str, Query(max_length=140)] = "",
) -> Response:
    """Show the folders; with an adapter, its versions can be kept in them."""
    chosen = service.adapter_by_slug(session, adapter) if adapter else None
    found = read_folders(session, state)
    aliases = alias_numbers(session, chosen.key) if chosen else {}
    rows = service.list_versions(session, chosen.key) if chosen else []
    named = [(alias, f"{alias}, now version {number}") for alias, number in aliases.items()]
    numbers = [(f"v{row.version}", f"version {row.version}") for row in rows]
    return render(
        request,
        "adapters/folders.html",
        folders=found,
        adapter=chosen,
        versions=sorted(named, key=lambda one: one[0] != LATEST) + numbers,
        is_active=any(kept.job.state.is_active for folder in found for kept in folder.kept),
    )


@router.post("/folders/{folder}", Action.ADMIN)
def keep(
    state: State, session: Writing, folder: Slug, adapter: Words, version: Words = ""
) -> Response:
    """Keep a version of an adapter in a folder."""
    row = service.adapter_by_slug(session, adapter)
    folders.keep(session, state.settings, row, folder, version)
    text = f"“{row.name}” is being written to {folder}."
    return redirect_with_notice(f"/folders?{urlencode({'adapter': adapter})}", text)


@router.post("/folders/{folder}/removals", Action.ADMIN)
def remove(
    session: Writing, folder: Slug, adapter: Annotated[int, Form()], version: Words = ""
) -> Response:
    """Remove the files of an adapter from a folder."""
    folders.remove(session, adapter, folder, version)
    return redirect_with_notice("/folders", f"It is being removed from {folder}.")


@router.post("/folders/{folder}/imports", Action.ADMIN)
def import_files(state: State, folder: Slug, file: Names = []) -> Response:  # noqa: B006
    """Import files of a folder that are not here yet."""
    received = folders.import_files(state, folder, file)
    keys = urlencode([("imported", one.job.key) for one in received if one.job])
    refused = [f"{one.filename}: {one.error}" for one in received if one.error]
    if refused:
        return redirect_with_notice(f"/adapters?{keys}", " ".join(refused))
    return RedirectResponse(f"/adapters?{keys}", status_code=303)
