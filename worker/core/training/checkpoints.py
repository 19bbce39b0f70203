"""Saves training states to disk and restores the newest undamaged one.

A checkpoint is a folder `step-000150` with `state.pt` (everything the next step depends on),
`adapter.safetensors` (the adapter at this step) and `manifest.json`, which holds the hashes of both
and the identity of the training. The folder gets its name when it is complete on disk. The adapters
of checkpoints whose state was deleted lie in `adapters`.
"""

import hashlib
import io
import json
import pickle
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from worker.core.atomic_write import link_or_copy, sync_folder, write_atomically
from worker.core.lora_files import canonical
from worker.core.lora_files.canonical import LoraAdapter
from worker.core.old_names import rename_old
from worker.core.training.config import TrainConfig
from worker.core.training.data.images import TrainingImage, dataset_fingerprint
from worker.core.training.errors import CheckpointError
from worker.core.training.events import ADAPTER, ADAPTERS, CheckpointSaved

STATE = "state.pt"
MANIFEST = "manifest.json"
PREFIX = "step-"
SUFFIX = ".safetensors"
UNFINISHED = ".unfinished-"
NOT_IN_IDENTITY = frozenset(
    {"checkpoint_every", "keep_checkpoints", "keep_adapters", "evaluate", "patience"}
)
LATER_SETTINGS = ("noise_focus", "flow_shift", "level_density", "base_weights")
"""Checkpoints of releases before these have none of them; with their default nothing changes."""
SAME_BATCHES = (
    "pictures",
    "batch_size",
    "validation_share",
    "validation_seed",
    "seed",
    "aspect_buckets",
    "resolution",
)
SAME_MEASURE = (
    *SAME_BATCHES,
    "base_model",
    "clip_skip",
    "masked_loss",
    "prediction_type",
    "unmasked_weight",
    "zero_terminal_snr",
)


@dataclass(frozen=True, slots=True)
class RestoredState:
    """The state in a checkpoint, and the identity of its training."""

    step: int
    state: dict[str, Any]
    identity: Mapping[str, Any] = field(default_factory=dict)


class _DamagedError(Exception):
    """The files of a checkpoint differ from its manifest."""


class CheckpointFolder:
    """The checkpoints of one training, recognized by its identity.

    `identity` is what a state depends on (config, images, base), as JSON values. Of the states, the
    newest `keep` stay; of their adapters, which also lie in the folder `adapters`, the newest
    `keep_adapters`, or all; of both also the best. With `adopts`, checkpoints of any training are
    accepted, to continue from.
    """

    def __init__(
        self,
        root: Path,
        *,
        identity: Mapping[str, Any],
        keep: int,
        keep_adapters: int | None = None,
        adopts: bool = False,
    ) -> None:
        self._root = root
        self._adapters = root / ADAPTERS
        self._keep_adapters = keep_adapters
        self._adopts = adopts
        self._identity = json.loads(json.dumps(identity))
        self._keep = keep

    def save(
        self, step: int, state: Mapping[str, Any], adapter: LoraAdapter, *, best: int | None = None
    ) -> CheckpointSaved:
        """Write a checkpoint, then delete all but the newest few and the best. May raise OSError.

        `best`: the step of the best one; None: there is none.
        """
        self._root.mkdir(parents=True, exist_ok=True)
        final = self._root / checkpoint_name(step)
        unfinished = Path(tempfile.mkdtemp(dir=self._root, prefix=UNFINISHED))
        try:
            buffer = io.BytesIO()
            torch.save(dict(state), buffer)
            write_atomically(unfinished / STATE, buffer.getvalue())
            canonical.save_adapter(adapter, unfinished / ADAPTER)
            manifest = {"step": step, "identity": self._identity, "files": _file_hashes(unfinished)}
            write_atomically(unfinished / MANIFEST, json.dumps(manifest, indent=1).encode())
            if final.exists():  # damaged, or of a run that was rolled back
                shutil.rmtree(final)
            unfinished.rename(final)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        sync_folder(self._root)
        self._keep_adapter(final, best)
        self._delete_all_but(final, best)
        size = sum(file.stat().st_size for file in final.iterdir())
        return CheckpointSaved(step, final, size, best=best)

    def restore(self, *, on_damaged: Callable[[str], None]) -> RestoredState | None:
        """The newest readable state; None when there is none.

        Damaged checkpoints are reported and skipped. Raises CheckpointError when one belongs to
        another training.
        """
        for folder in reversed(checkpoints_in(self._root)):
            try:
                manifest = _read_checked_manifest(folder)
                identity = rename_old(manifest["identity"])
                if not self._adopts:
                    self._check_identity(identity)
                return RestoredState(manifest["step"], _load_state(folder / STATE), identity)
            except _DamagedError as error:
                on_damaged(f"The checkpoint {folder.name} is damaged ({error}) and was skipped.")
        return None

    def delete_unfinished(self) -> None:
        """Delete what was left by a run that was killed while saving."""
        if self._root.is_dir():
            for folder in self._root.glob(f"{UNFINISHED}*"):
                shutil.rmtree(folder, ignore_errors=True)

    def _keep_adapter(self, newest: Path, best: int | None) -> None:
        """Link the adapter of a checkpoint aside, so that it outlives its state."""
        self._adapters.mkdir(exist_ok=True)
        target = self._adapters / f"{newest.name}{SUFFIX}"
        target.unlink(missing_ok=True)
        link_or_copy(newest / ADAPTER, target)
        sync_folder(self._adapters)
        for file in _outdated(target, self._keep_adapters, best):
            file.unlink(missing_ok=True)

    def _delete_all_but(self, newest: Path, best: int | None) -> None:
        """Keep this one, the few before it and the best; later ones are damaged or undone."""
        for folder in _outdated(newest, self._keep, best):
            shutil.rmtree(folder, ignore_errors=True)

    def _check_identity(self, found: Mapping[str, Any]) -> None:
        if found == self._identity:
            return
        names = sorted(
            name
            for name in {*found, *self._identity}
            if found.get(name) != self._identity.get(name)
        )
        raise CheckpointError(
            f"{self._root} has checkpoints of another training: {', '.join(names)} differ. "
            "Choose an empty folder, or use the settings of that training."
        )


def checkpoint_name(step: int) -> str:
    """The name of the folder of a checkpoint."""
    return f"{PREFIX}{step:06d}"


def adapter_name(step: int) -> str:
    """The name of the adapter of a checkpoint in the folder of all adapters."""
    return f"{checkpoint_name(step)}{SUFFIX}"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint. Raises CheckpointError when it is missing or damaged."""
    try:
        return _read_checked_manifest(folder)
    except _DamagedError as error:
        raise CheckpointError(
            f"Cannot continue from {folder}: {error}. Choose another checkpoint."
        ) from error


def checkpoints_in(root: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    if not root.is_dir():
        return []
    names = (path for path in root.iterdir() if path.name.startswith(PREFIX))
    return sorted(names, key=lambda path: (len(path.name), path.name))


def _outdated(newest: Path, keep: int | None, best: int | None) -> list[Path]:
    """All beside the newest but those before it, `keep` with itself, and that of step `best`."""
    paths = checkpoints_in(newest.parent)
    until = paths[: paths.index(newest) + 1]
    kept = [path for path in until if best is not None and path.stem == checkpoint_name(best)]
    kept += until if keep is None else until[-keep:]
    return [path for path in paths if path not in kept]


def _read_checked_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, after its hashes were compared with the files."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files, complete = manifest["files"], {"step", "identity"} <= manifest.keys()
        found = _file_hashes(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamagedError("its manifest cannot be read") from error
    if not complete or files != found:
        raise _DamagedError("its files differ from those that were saved")
    return manifest  # type: ignore[no-any-return]


def _load_state(path: Path) -> dict[str, Any]:
    """The tensors and plain values of a state; no code in the file is executed."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)  # type: ignore[no-any-return]
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise _DamagedError("its state cannot be read") from error


def _file_hashes(folder: Path) -> dict[str, str]:
    hashes = {}
    for name in (STATE, ADAPTER):
        with (folder / name).open("rb") as file:
            hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def training_identity(
    config: TrainConfig, images: Sequence[TrainingImage], base_fingerprint: str
) -> dict[str, Any]:
    """The identity of a training: everything that influences its numbers."""
    left_out = {*NOT_IN_IDENTITY, *({"validation_seed"} if config.validation_seed is None else ())}
    fields = config.model_dump(mode="json", exclude=left_out)
    settings = {name: value for name, value in fields.items() if not name.startswith("sample_")}
    usual = TrainConfig()
    for name in LATER_SETTINGS:
        if getattr(config, name) == getattr(usual, name):
            del settings[name]
    return settings | {
        "pictures": dataset_fingerprint(images),
        "base_model": base_fingerprint,
    }


def have_equal(names: Sequence[str], one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True when these values are the same in both identities."""
    return all(one.get(name) == other.get(name) for name in names)


def copy_start_checkpoint(start: Path, out: Path, *, steps: int, base: str) -> None:
    """Copy a checkpoint into the folder of a training of `steps` steps, to continue from it.

    `start` is a checkpoint, or the folder of a training, whose newest is used. A training that
    already has checkpoints continues from its own. `base` is the base model's fingerprint. Raises
    CheckpointError.
    """
    inside = checkpoints_in(start / "checkpoints")
    source = inside[-1] if inside else start
    manifest = read_manifest(source)
    if manifest["identity"].get("base_model") != base:
        raise CheckpointError(f"{source} belongs to another base model. Choose that model.")
    own = checkpoints_in(out / "checkpoints")
    if manifest["step"] > steps or (manifest["step"] == steps and source not in own):
        raise CheckpointError(
            f"{source} is at step {manifest['step']:,}. Steps are counted from the start of the "
            "original training: use a larger --steps."
        )
    if own:
        return
    root = out / "checkpoints"
    root.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=root, prefix=UNFINISHED))
    shutil.copytree(source, unfinished, dirs_exist_ok=True)
    unfinished.rename(root / source.resolve().name)
