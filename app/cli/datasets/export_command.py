"""`brushwork datasets export`: a dataset, or one of its pinned versions, as a ZIP archive."""

from __future__ import annotations

import sys
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

from app.cli.progress_line import progress_line
from app.registry.datasets import service
from app.registry.datasets.transfer.contents import (
    Contents,
    dataset_contents,
    version_contents,
)
from app.registry.datasets.transfer.exporting import export_chunks
from app.registry.errors import NotFound
from app.registry.state import AppState
from app.registry.wording import size_text


def run(arguments: Namespace, state: AppState) -> int:
    """Write the archive and print its path; 1 if the file cannot be written.

    Raises NotFound or Conflict.
    """
    contents = _contents(state, arguments.slug, arguments.version)
    target: Path = arguments.output or Path(contents.filename)
    if target.is_dir():
        target = target / contents.filename
    unfinished = target.with_name(f"{target.name}.part")
    try:
        with unfinished.open("wb") as file, progress_line() as show:
            for chunk in export_chunks(state.store, contents):
                file.write(chunk)
                show(f"{size_text(file.tell())} written")
        print(unfinished.replace(target))
    except OSError as error:
        print(f"{target} cannot be written: {error.strerror or error}.", file=sys.stderr)
        return 1
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return 0


def _contents(state: AppState, slug: str, version: int | None) -> Contents:
    with state.database.snapshot() as session:
        dataset = service.dataset_by_slug(session, slug)
        if version is None:
            return dataset_contents(session, dataset.key)
        contents = version_contents(session, version)
    if contents.slug != slug:
        raise NotFound(f"“{slug}” has no version {version}: `brushwork datasets show {slug}`.")
    return contents
