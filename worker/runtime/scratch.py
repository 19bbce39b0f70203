"""Temporary folders of trainings: images in, checkpoints and samples out, removed at the end."""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.registry.errors import AppError
from app.registry.images.image_types import image_suffix
from app.registry.storage.store import Blob, BlobStore
from app.registry.tables.runs import Checkpoint, Sample
from worker.core.atomic_write import link_or_copy
from worker.core.training.events import ADAPTER, ADAPTERS
from worker.runtime.outages.patience import reason_to_wait

CHECKPOINTS = "checkpoints"
HELD = "held"  # checkpoints that wait to be stored
PASSED_ON = (
    "captions",
    "focus",
    "repeats",
    "never_flip",
)  # of an item of a version, if it has them

log = logging.getLogger(__name__)


@contextlib.contextmanager
def attempt_folder(data_dir: Path, run_id: int, token: str) -> Iterator[Path]:
    """A new folder for one attempt, removed at its end.

    Each attempt has its own, so that a frozen trainer that wakes up cannot touch other files. The
    next attempt gets its inputs from the blob store.
    """
    folder = work_folder(data_dir) / f"run-{run_id}-{token[:8]}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def work_folder(data_dir: Path) -> Path:
    """The parent folder of all attempt folders."""
    return data_dir / "work"


def attempt_folders(data_dir: Path) -> list[Path]:
    """All attempt folders that exist now."""
    return list(work_folder(data_dir).glob("run-*-*"))


def remove_abandoned(folders: Sequence[Path], tokens: Sequence[str]) -> None:
    """Remove attempt folders that belong to no owner in `tokens`: their worker was killed.

    List the folders before reading the tokens: a run has an owner before it has a folder, so the
    folder of a run that starts meanwhile is either not listed or its token is known.
    """
    owned = {token[:8] for token in tokens}
    for folder in folders:
        if folder.name.rpartition("-")[2] not in owned:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class ItemsToTrain:
    """The items of a dataset version, and how often an epoch uses them; `number`: from 0."""

    items: Sequence[Mapping[str, Any]]
    repeats: int = 1
    number: int = 0
    is_regularization: bool = False

    def line(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The line of `metadata.jsonl` for an item, without its file; defaults are left out."""
        line = {"text": item["caption"]}
        line |= {rule: item[rule] for rule in PASSED_ON if rule in item}
        if self.repeats != 1:
            line["repeats"] = int(item.get("repeats", 1)) * self.repeats
        if self.number:
            line["dataset"] = self.number
        if self.is_regularization:
            line["regularization"] = True
        return line


def write_images(
    store: BlobStore, sets: Sequence[ItemsToTrain], folder: Path, scratch: Path
) -> None:
    """Write the images of dataset versions, with captions and settings in `metadata.jsonl`."""
    folder.mkdir(parents=True)
    scratch.mkdir(parents=True, exist_ok=True)
    lines = []
    every = [(one, item) for one in sets for item in one.items]
    for number, (one, item) in enumerate(every):
        blob = store.local_path(item["clean_sha256"], scratch)
        name = f"{number:05d}{image_suffix(blob)}"
        link_or_copy(blob, folder / name)
        lines.append(json.dumps({"file_name": name} | one.line(item), ensure_ascii=False))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def restore_samples(store: BlobStore, rows: Sequence[Sample], out: Path, scratch: Path) -> None:
    """Restore samples, so that a resumed run does not generate them again."""
    for row in rows:
        path = out / "samples" / f"step-{row.step:06d}" / f"prompt-{row.prompt_index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(AppError):  # a missing sample is generated again
            link_or_copy(store.local_path(row.sha256, scratch), path)


def hold_checkpoint(folder: Path, held: Path) -> Path:
    """Keep a checkpoint that the trainer may delete any time; gives the folder to store.

    Links take no space; where they are not possible, not even a copy, it is the trainer's own.
    """
    target = held / folder.name
    try:
        shutil.copytree(folder, target, copy_function=link_or_copy)
    except OSError as error:
        log.warning("Could not keep the checkpoint %s aside: %s", folder.name, error)
        shutil.rmtree(held, ignore_errors=True)
        return folder
    return target


def hold_adapter(folder: Path, held: Path) -> Path:
    """Keep the adapter of a checkpoint as this file; gives the file to store.

    Where that is not possible, it is the trainer's own, which it keeps longer than the checkpoint.
    """
    try:
        held.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy(folder / ADAPTER, held)
    except OSError as error:
        log.warning("Could not keep the adapter of %s aside: %s", folder.name, error)
        return folder.parent / ADAPTERS / f"{folder.name}.safetensors"
    return held


def pack_checkpoint(store: BlobStore, folder: Path, *, run_id: int) -> Blob:
    """Store a checkpoint folder as a tar file, with the run's id so that equal runs share none."""
    with tempfile.TemporaryDirectory(dir=folder.parent.parent) as temporary:
        path = Path(temporary) / "checkpoint.tar"
        headers = {"BRUSHWORK.run": str(run_id)}
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers=headers) as tar:
            tar.add(folder, arcname=folder.name)
        return store.put_file(path)


@dataclass
class RestoredCheckpoint:
    """The step of the unpacked checkpoint, 0 if there was none, and the newer unusable ones."""

    step: int = 0
    unusable: list[tuple[Checkpoint, Exception]] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """A sentence for users about what was skipped."""
        steps = " and ".join(f"{row.step:,}" for row, _ in self.unusable)
        is_one = len(self.unusable) == 1
        which = f"checkpoint of step {steps} is" if is_one else f"checkpoints of steps {steps} are"
        start = f"continues from step {self.step:,}" if self.step else "starts from the beginning"
        return f"The {which} damaged or missing, so the run {start}."


def restore_checkpoint(
    store: BlobStore, rows: Sequence[Checkpoint], out: Path
) -> RestoredCheckpoint:
    """Unpack the newest undamaged checkpoint into `out`.

    Raises errors that are not a checkpoint's fault, such as StorageUnavailable.
    """
    target = out / CHECKPOINTS
    target.mkdir(parents=True, exist_ok=True)
    restored = RestoredCheckpoint()
    for row in rows:
        try:
            with store.open(row.sha256) as blob, tarfile.open(fileobj=blob, mode="r:") as tar:
                tar.extractall(target, filter="data")
            restored.step = row.step
            break
        except (AppError, OSError, tarfile.TarError) as error:
            if reason_to_wait(error) is not None:
                raise  # it is not damaged: nobody can tell now
            log.warning("The checkpoint of step %s cannot be used: %s", row.step, error)
            restored.unusable.append((row, error))
            shutil.rmtree(target)
            target.mkdir()
    return restored
