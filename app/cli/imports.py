"""`brushwork import`: LoRA files of this machine into the registry, with what lies beside them."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.registry.adapters import imports, service
from app.registry.adapters.imports import Received
from app.registry.config import Settings
from app.registry.errors import AppError
from app.registry.jobs.kinds import ImportAdapterResult
from app.registry.jobs.models import IoJob
from app.registry.jobs.states import JobStatus
from app.registry.state import AppState, make_state
from app.registry.uploads import UploadedFile

IMPORT_SECONDS = 600.0  # without a word from an io worker
POLL_SECONDS = 0.2
WEIGHTS = ".safetensors"


def run(arguments: Namespace, settings: Settings) -> int:
    """Import every file and say what it became; 1 when one of them was not imported."""
    state = make_state(settings)
    every = True
    try:
        for line, was_imported in bring_in(state, arguments.paths):
            print(line, file=sys.stdout if was_imported else sys.stderr, flush=True)
            every &= was_imported
    except AppError as error:
        print(error.detail, file=sys.stderr)
        return 1
    finally:
        state.decoder.close()
        state.hints.close()
        state.database.dispose()
    return 0 if every else 1


def bring_in(state: AppState, paths: Sequence[Path]) -> Iterator[tuple[str, bool]]:
    """(what became of it, whether it was imported) of every file of weights."""
    weights: list[Path] = []
    for path in paths:
        if not path.exists():
            yield f"There is no file {path}.", False
            continue
        found = sorted(path.glob(f"*{WEIGHTS}")) if path.is_dir() else [path]
        if not found:
            yield f"The folder {path} holds no {WEIGHTS} file.", False
        weights += found
    received = [row for path in weights for row in _receive(state, path)]
    for row in received:
        yield _ended(state, row)


def _receive(state: AppState, weights: Path) -> list[Received]:
    """Store one file of weights and what lies beside it under the same name; order its check."""
    beside = [
        path
        for ending in imports.ENDINGS
        for path in (weights.with_suffix(ending), Path(f"{weights}{ending}"))
        if path.is_file()
    ]
    uploads = [UploadedFile(path.name, path) for path in (weights, *beside)]
    return imports.receive_all(state, uploads)


def _ended(state: AppState, row: Received) -> tuple[str, bool]:
    """The sentence for a file once an io worker has checked it."""
    if row.job is None:
        return f"{row.filename}: {row.error}", False
    deadline = time.monotonic() + IMPORT_SECONDS
    while time.monotonic() < deadline:
        with state.database.read() as session:
            job = session.get_one(IoJob, row.job.key)
            if job.state is JobStatus.SUCCEEDED:
                imported = job.outcome(ImportAdapterResult)
                adapter = service.get_adapter(session, imported.adapter_id or 0)
                known = " (these weights are here already)" if imported.duplicate else ""
                return f"{row.filename}: {adapter.slug}{known}", True
        if job.state.is_final:
            return f"{row.filename}: {job.error or 'The import was canceled.'}", False
        time.sleep(POLL_SECONDS)
    return (
        f"{row.filename}: it waits, but no io worker has checked it yet. Start Brushwork "
        "(`brushwork serve`); the import goes on by itself.",
        False,
    )
