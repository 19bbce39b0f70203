"""Check of a file from any source: every program should read it as our own reader does."""

from __future__ import annotations

from pathlib import Path

from worker.core.families.adapter_files import family_shapes
from worker.core.families.family import BaseFamily
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.file_family import find_family
from worker.core.lora_files.file_layout import FileLayout, is_plain, read_layout
from worker.core.lora_files.keys import Leaf, Naming
from worker.core.lora_files.proof.check import prove_file
from worker.core.lora_files.proof.result import Proof
from worker.core.lora_files.reading import read_with_notes

_COMFY_PREFIXES = ("diffusion_model.", "text_encoders.", "lycoris_")


def check_file(path: Path, family: BaseFamily | None = None) -> Proof:
    """Proof of how every program reads a plain LoRA file; `family` is detected if not given.

    Raises AdapterError if the file cannot be read, or changes layers by anything but plain LoRA.
    """
    layout = read_layout(path)
    for module in layout.modules:
        if not is_plain(module) or Leaf.MID in module.names:
            name = next(name for leaf, name in module.names.items() if leaf is not Leaf.ALPHA)
            raise AdapterError(
                f"Only plain LoRA files can be checked, but this one contains {name[:80]!r} "
                f"({module.parametrization.kind}{', DoRA' if module.is_dora else ''}). "
                "Convert it first: brushwork adapters convert IN OUT."
            )
    family = family or find_family(layout)[0]
    # only norms and biases can be lost here, which the programs' lines are about
    adapter = read_with_notes(path, shapes=family_shapes(family), allow_loss=True).adapter
    return prove_file(
        path,
        adapter,
        format=_format_of(layout),
        dtype="fp32",  # no rounding since: our reader and the programs read the same numbers
        family=family,
        foreign=True,
    )


def _format_of(layout: FileLayout) -> str:
    """The programs that the names of a file are for: all, diffusers or ComfyUI."""
    names = layout.header.tensors
    if any(name.startswith(_COMFY_PREFIXES) for name in names):
        return "comfyui"
    is_dotted = layout.namings <= {Naming.PEFT, Naming.SCRIPT, Naming.OLD}
    return "peft" if is_dotted else "kohya"
