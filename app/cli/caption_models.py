"""`brushwork caption-models`: list, add and remove the models that caption images here."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from app.cli.database import open_state
from app.cli.io_jobs import wait_for_io
from app.registry.added_models import service as added_models
from app.registry.added_models.service import ListedModel, delete_model_files
from app.registry.caption_models import service
from app.registry.caption_models.service import CAPTION_MODELS
from app.registry.config import Settings
from app.registry.state import AppState
from app.registry.tables.added_models import CaptionModel
from app.registry.wording import size_text

NO_WORKER = (
    "No io worker is at work. Start Brushwork (`brushwork serve`) and it continues; the page of "
    "caption models shows it."
)


def run(arguments: Namespace, settings: Settings) -> int:
    """Carry out an action; return its exit code. Raises UnusableDatabase."""
    act = {"list": _list, "add": _add, "remove": _remove}[arguments.action]
    with open_state(settings) as state:
        return act(arguments, state)


def _list(arguments: Namespace, state: AppState) -> int:
    """Print the models, the oldest first."""
    with state.database.read() as session:
        rows = added_models.list_with_progress(session, CAPTION_MODELS)
    if arguments.json:
        print(json.dumps([_facts(row) for row in rows], indent=2, ensure_ascii=False))
        return 0
    for row in rows:
        print(_line(row))
    if not rows:
        print("There are no caption models yet. Add one: brushwork caption-models add SOURCE")
    return 0


def _add(arguments: Namespace, state: AppState) -> int:
    """Add a model, or check one again that failed, and wait until it can be used."""
    source = arguments.source
    if source.startswith("."):  # unlike a server, a command has a folder that it is called in
        source = str(Path(source).resolve())
    with state.database.write() as session:
        key = added_models.add(session, CAPTION_MODELS, source, state.settings).key

    latest = ""

    def find() -> ListedModel[CaptionModel] | None:
        nonlocal latest
        with state.database.read() as session:
            model = added_models.get_model(session, CAPTION_MODELS, key)
            (row,) = added_models.list_with_progress(session, CAPTION_MODELS, [model])
        latest = _progress(row)
        return None if row.is_changing else row

    row = wait_for_io(state, find, lambda: latest, NO_WORKER)
    if row.error:
        print(row.error, file=sys.stderr)
        return 1
    print(_line(row))
    return 0


def _remove(arguments: Namespace, state: AppState) -> int:
    """Remove a model; only downloaded files are deleted."""
    with state.database.write() as session:
        model = added_models.find_model(session, CAPTION_MODELS, arguments.model)
        name, place = model.name, service.remove(session, model.key, state.settings)
    delete_model_files(place)
    print(f"Removed {name}." if place is None else f"Removed {name} and its files.")
    return 0


def _facts(row: ListedModel[CaptionModel]) -> dict[str, Any]:
    """The values of a model for `--json`."""
    return {
        "id": row.model.key,
        "slug": row.model.slug,
        "name": row.model.name,
        "family": row.model.family,
        "status": row.status,
        "error": row.error,
        "source": row.model.place,
        "size_bytes": row.model.size_bytes,
    }


def _line(row: ListedModel[CaptionModel]) -> str:
    model = row.model
    return f"{model.slug:<32} {row.status:<12} {model.family_label or '-':<12} {model.place}"


def _progress(row: ListedModel[CaptionModel]) -> str:
    download = row.download
    if download is None or not download.total:
        return f"{row.model.name}: {row.status}"
    return f"{row.model.name}: {size_text(download.done)} of {size_text(download.total)}"
