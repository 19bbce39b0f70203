"""`brushwork import`: imports LoRA files of this machine, with their sidecar files."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

from app.cli.database import open_state
from app.registry.adapters import imports, service
from app.registry.adapters.imports import ReceivedFile
from app.registry.config import Settings
from app.registry.job_kinds.kinds import LOSS_CODE, ImportAdapterResult
from app.registry.job_kinds.states import JobStatus
from app.registry.state import AppState
from app.registry.tables.jobs import IoJob
from worker.core.lora_files.file_names import WEIGHTS_NAME

IMPORT_SECONDS = 600.0  # how long to wait for an io worker
POLL_SECONDS = 0.2
WEIGHTS = ".safetensors"


def run(arguments: Namespace, settings: Settings) -> int:
    """Import every file and print the result; return 1 if a file was not imported.

    Raises UnusableDatabase.
    """
    every = True
    with open_state(settings) as state:
        for line, was_imported in import_paths(
            state, arguments.paths, allow_loss=arguments.allow_loss
        ):
            print(line, file=sys.stdout if was_imported else sys.stderr, flush=True)
            every &= was_imported
    return 0 if every else 1


def import_paths(
    state: AppState, paths: Sequence[Path], *, allow_loss: bool = False
) -> Iterator[tuple[str, bool]]:
    """(message, whether it was imported) for every LoRA file."""
    weights: list[Path] = []
    for path in paths:
        if not path.exists():
            yield f"{path} does not exist.", False
            continue
        found = [path]
        if path.is_dir():
            found = sorted(path.glob(f"*{WEIGHTS}")) or sorted(path.glob(f"*/{WEIGHTS_NAME}"))
        if not found:
            yield f"The folder {path} contains no {WEIGHTS} file.", False
        weights += found
    received = [
        row for path in weights for row in imports.receive_path(state, path, allow_loss=allow_loss)
    ]
    for row in received:
        yield _wait_for_import(state, row)


def _wait_for_import(state: AppState, row: ReceivedFile) -> tuple[str, bool]:
    """Wait until an io worker has imported a file; return the message for it."""
    if row.job is None:
        return f"{row.filename}: {row.error}", False
    deadline = time.monotonic() + IMPORT_SECONDS
    while time.monotonic() < deadline:
        with state.database.read() as session:
            job = session.get_one(IoJob, row.job.key)
            if job.state is JobStatus.SUCCEEDED:
                imported = job.outcome(ImportAdapterResult)
                adapter = service.get_adapter(session, imported.adapter_id or 0)
                known = " (already in the registry)" if imported.duplicate else ""
                return f"{row.filename}: {adapter.slug}{known}", True
        if job.state.is_final:
            way_on = " Add --allow-loss to import it." if job.error_code == LOSS_CODE else ""
            return f"{row.filename}: {job.error or 'The import was canceled.'}{way_on}", False
        time.sleep(POLL_SECONDS)
    return (
        f"{row.filename}: still waiting for an io worker. Start Brushwork (`brushwork serve`) to "
        "continue the import.",
        False,
    )
