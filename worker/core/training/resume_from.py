"""The checkpoint of another training as the start of a new one, which may be longer."""

import shutil
import tempfile
from pathlib import Path

from worker.core.training.checkpoint import UNFINISHED, checkpoints_in, manifest_of
from worker.core.training.errors import CheckpointError


def lay_start(start: Path, out: Path, *, steps: int, base: str) -> None:
    """Put a checkpoint into the folder of a training of so many steps, to go on from it.

    `start` is a checkpoint, or the folder of a training, whose newest is meant. A training that has
    checkpoints already has begun, and goes on from those. `base` is the base's fingerprint. Raises
    CheckpointError.
    """
    inside = checkpoints_in(start / "checkpoints")
    source = inside[-1] if inside else start
    manifest = manifest_of(source)
    if manifest["identity"].get("base_model") != base:
        raise CheckpointError(f"{source} is a checkpoint of an adapter for another base model.")
    own = checkpoints_in(out / "checkpoints")
    if manifest["step"] > steps or (manifest["step"] == steps and source not in own):
        raise CheckpointError(
            f"{source} is of step {manifest['step']:,} already. --steps counts from the very "
            "beginning: it has to be more."
        )
    if own:
        return
    root = out / "checkpoints"
    root.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=root, prefix=UNFINISHED))
    shutil.copytree(source, unfinished, dirs_exist_ok=True)
    unfinished.rename(root / source.resolve().name)
