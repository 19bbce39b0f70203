"""Check of a file from any source: every program should read it as our own reader does."""

from __future__ import annotations

from pathlib import Path

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.converting import family_of
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.proof.check import prove_file
from worker.core.lora_files.proof.content import FileContent
from worker.core.lora_files.proof.result import Proof
from worker.core.lora_files.reading import read_adapter

_OTHER_KINDS = ("hada_", "lokr_", "lora_mid", "dora_scale", "diff", "_norm")


def check_file(path: Path, family: BaseFamily | None = None) -> Proof:
    """Proof of how every program reads a plain LoRA file; `family` is detected if not given.

    Raises AdapterError if the file cannot be read or contains anything but plain LoRA.
    """
    content = FileContent.read(path)
    for name in content.tensors:
        leaf = name.partition(".")[2] if name.startswith("lora_") else name.rpartition(".")[2]
        if leaf.startswith(_OTHER_KINDS):
            raise AdapterError(
                f"Only plain LoRA files can be checked, but this one contains {name[:80]!r}. "
                "Convert it first: brushwork adapters convert IN OUT."
            )
    adapter = read_adapter(path)
    has_kohya_names = any(name.startswith(("lora_unet_", "lora_te")) for name in content.tensors)
    return prove_file(
        path,
        adapter,
        format="kohya" if has_kohya_names else "peft",
        dtype="fp32",  # no rounding since: our reader and the programs read the same numbers
        family=family or family_of(adapter),
    )
