"""Folders a training works in: pictures in, checkpoints and samples out, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.registry.errors import AppError
from app.registry.picture_types import picture_suffix
from app.registry.runs.models import Checkpoint, Sample
from app.registry.storage.store import Blob, BlobStore, verify

CHECKPOINTS = "checkpoints"

log = logging.getLogger(__name__)


@contextlib.contextmanager
def attempt_folder(data_dir: Path, run_id: int, token: str) -> Iterator[Path]:
    """A fresh folder for one attempt, removed at its end.

    Each attempt has its own, so that a frozen trainer that wakes up can touch nobody's files; what
    the next attempt needs comes from the blob store.
    """
    folder = work_folder(data_dir) / f"run-{run_id}-{token[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def work_folder(data_dir: Path) -> Path:
    """Where attempts have their folders."""
    return data_dir / "work"


def attempt_folders(data_dir: Path) -> list[Path]:
    """The folders of all attempts that are there now."""
    return list(work_folder(data_dir).glob("run-*-*"))


def sweep(folders: Sequence[Path], tokens: Sequence[str]) -> None:
    """Remove those folders of attempts that no owner in `tokens` holds: their worker was killed.

    The folders have to be listed before the tokens are read: a run is owned before it has a folder,
    so one that another worker begins meanwhile is either not listed or known by its token.
    """
    owned = {token[:8] for token in tokens}
    for folder in folders:
        if folder.name.rpartition("-")[2] not in owned:
            shutil.rmtree(folder, ignore_errors=True)


def lay_out_pictures(
    store: BlobStore,
    items: Sequence[Mapping[str, Any]],
    folder: Path,
    scratch: Path,
    *,
    regularisation: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write the pictures of dataset versions, and what is said of them as `metadata.jsonl`."""
    folder.mkdir(parents=True)
    scratch.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, item in enumerate([*items, *regularisation]):
        blob = store.local_path(item["clean_sha256"], scratch)
        name = f"{number:05d}{picture_suffix(blob)}"
        _link_or_copy(blob, folder / name)
        line = {"file_name": name, "text": item["caption"]}
        line |= {rule: item[rule] for rule in ("repeats", "never_flip") if rule in item}
        if number >= len(items):
            line["regularisation"] = True
        lines.append(json.dumps(line, ensure_ascii=False))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def restore_samples(store: BlobStore, rows: Sequence[Sample], out: Path, scratch: Path) -> None:
    """Put back the samples that were drawn, so that a resumed run need not draw them again."""
    for row in rows:
        path = out / "samples" / f"step-{row.step:06d}" / f"prompt-{row.prompt_index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(AppError):  # one that is gone is drawn again
            _link_or_copy(store.local_path(row.sha256, scratch), path)


def pack_checkpoint(store: BlobStore, folder: Path, *, run_id: int) -> Blob:
    """Store a checkpoint folder as a tar; the run's id in it keeps equal runs from sharing one."""
    with tempfile.TemporaryDirectory(dir=folder.parent.parent) as temporary:
        path = Path(temporary) / "checkpoint.tar"
        headers = {"BRUSHWORK.run": str(run_id)}
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar:
            tar.add(folder, arcname=folder.name)
        return store.put_file(path)


def restore_checkpoint(store: BlobStore, rows: Sequence[Checkpoint], out: Path) -> int:
    """Unpack the newest checkpoint that is undamaged into `out`; gives its step, 0 for none."""
    target = out / CHECKPOINTS
    target.mkdir(parents=True, exist_ok=True)
    for row in rows:
        try:
            verify(store, row.sha256)
            with store.open(row.sha256) as blob, tarfile.open(fileobj=blob, mode="r:") as tar:
                tar.extractall(target, filter="data")
            return row.step
        except (AppError, OSError, tarfile.TarError) as error:
            log.warning("The checkpoint of step %s cannot be used: %s", row.step, error)
            shutil.rmtree(target)
            target.mkdir()
    return 0
