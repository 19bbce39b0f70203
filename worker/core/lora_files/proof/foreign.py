"""The check of a file made anywhere: what our own reader finds in it is what it should mean."""

from __future__ import annotations

from pathlib import Path

from worker.core.bases.family import BaseFamily
from worker.core.lora_files.canonical import AdapterError
from worker.core.lora_files.converting import family_of
from worker.core.lora_files.proof.check import prove_file
from worker.core.lora_files.proof.content import FileContent
from worker.core.lora_files.proof.result import Proof
from worker.core.lora_files.reading import read_any

_OTHER_KINDS = ("hada_", "lokr_", "lora_mid", "dora_scale", "diff", "_norm")


def check_file(path: Path, family: BaseFamily | None = None) -> Proof:
    """What every program makes of a plain LoRA file; the family is told from it when not given.

    Raises AdapterError for a file that cannot be read, or that holds anything but plain LoRA.
    """
    content = FileContent.read(path)
    for name in content.tensors:
        leaf = name.partition(".")[2] if name.startswith("lora_") else name.rpartition(".")[2]
        if leaf.startswith(_OTHER_KINDS):
            raise AdapterError(
                f"The check knows plain LoRA files; this one holds {name[:80]!r}. Convert it "
                "first: brushwork adapters convert IN OUT."
            )
    adapter = read_any(path)
    named_by_kohya = any(name.startswith(("lora_unet_", "lora_te")) for name in content.tensors)
    return prove_file(
        path,
        adapter,
        format="kohya" if named_by_kohya else "peft",
        dtype="fp32",  # nothing was rounded since: reader and programs see the same numbers
        family=family or family_of(adapter),
    )
