"""Starts a training from the checkpoint of another one."""

import shutil
import tempfile
from pathlib import Path

from worker.core.training.checkpoints.folder import UNFINISHED, checkpoints_in, read_manifest
from worker.core.training.errors import CheckpointError


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
