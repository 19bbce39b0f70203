"""The tools that read whole base models: `fuse` and `extract`. Importing them loads diffusers."""

from __future__ import annotations

from argparse import Namespace

from app.cli.adapter_files.files import base_path, listed, read_stack, require_target, write_adapter
from worker.core.bases.inspect import inspect_base
from worker.core.lora_files.tools.extract import extract_adapter
from worker.core.lora_files.tools.fuse import FuseOptions, fuse_adapters
from worker.core.wording import size_text
from worker.core.words import FusedDtype, FuseLayout


def fuse(arguments: Namespace) -> None:
    """Write the fused base model and print a summary."""
    base = base_path(arguments.base)
    single = arguments.out.suffix == ".safetensors"
    layout = FuseLayout.SINGLE if single else FuseLayout.DIFFUSERS
    stack = read_stack(arguments.adapter)
    dtype = arguments.dtype or inspect_base(base).family.facts.options.gpu_precision
    options = FuseOptions(layout, FusedDtype(dtype))
    made = fuse_adapters(base, stack, arguments.out, options, base_name=f"“{arguments.base}”")
    print(
        f"Wrote {arguments.out}: {arguments.base} with {listed(stack)}; {made.layers} layers "
        f"changed, {size_text(made.size_bytes)}."
    )


def extract(arguments: Namespace) -> None:
    """Write the difference of two base models as an adapter and print its approximation error."""
    require_target(arguments.out)
    base, tuned = base_path(arguments.base), base_path(arguments.tuned)
    found = extract_adapter(base, tuned, arguments.rank)
    error = f"relative error {found.report.relative_error:.2%}"
    description = (
        f"The difference of {tuned.stem} and {base.stem} at rank {arguments.rank}: {error}."
    )
    write_adapter(found.adapter, [], arguments, description=description)
    changed = len(found.adapter.modules)
    print(f"Wrote {arguments.out}: {changed} layers, {found.unchanged} unchanged, {error}.")
    if found.beyond:
        print(
            f"Note: {found.beyond} norms, biases or embeddings also differ, which a LoRA cannot "
            "contain."
        )
