"""`brushwork adapters fuse --base X --adapter A:0.8 OUT`: fuse LoRA files into a base model."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from app.cli.adapter_files.sources import base_path
from app.cli.adapter_files.stacks import listed, read_stack
from worker.core.lora_files.tools.fuse import FuseOptions, fuse_adapters
from worker.core.wording import size_text
from worker.core.words import FusedDtype, FuseLayout

if TYPE_CHECKING:
    from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Write the fused base model and print a summary."""
    base = base_path(arguments.base)
    single = arguments.out.suffix == ".safetensors"
    layout = FuseLayout.SINGLE if single else FuseLayout.DIFFUSERS
    stack = read_stack(arguments.adapter)
    options = FuseOptions(layout, FusedDtype(arguments.dtype))
    made = fuse_adapters(base, stack, arguments.out, options, base_name=f"“{arguments.base}”")
    print(
        f"Wrote {arguments.out}: {arguments.base} with {listed(stack)}; {made.layers} layers "
        f"changed, {size_text(made.size_bytes)}."
    )
    return 0
