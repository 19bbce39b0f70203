"""Loads base models in its own process and reports its memory; started by `bench.base_load`.

Takes tasks as a JSON list and answers each with a line of JSON. Linux only: the peak is that of
/proc, which can be reset between tasks.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from worker.core.lean_imports import lean_imports

with lean_imports("cpu"):  # at half the CPU time
    import torch
    from safetensors import safe_open
    from torch import nn

    from bench.bases import pictures
    from worker.core.bases.inspect import inspect_base
    from worker.core.bases.ldm import SingleFileSource, convert_names
    from worker.core.bases.load import COMPONENTS, LoadedBase, Source, load_base, make_source
    from worker.core.bases.weights import StateDict, build_module, fill_weights
    from worker.core.inference.config import RenderConfig
    from worker.core.inference.pipeline import ResidentPipeline
    from worker.core.torch_dtypes import TORCH_DTYPES
    from worker.core.training.config import Precision, TrainConfig
    from worker.core.training.events import Commands, Event
    from worker.core.training.load import load_for_training
    from worker.core.training.memory import release_memory
    from worker.core.training.train import train

SIDE = 128


def main() -> None:
    """Do the tasks and print their memory in bytes."""
    for task in json.loads(sys.argv[1]):
        _reset_peak()
        before, started = _memory("VmRSS"), time.perf_counter()
        weights = _run_task(task)
        found = {"before": before, "peak": _memory("VmHWM"), "weights": weights}
        print(json.dumps(found | {"seconds": time.perf_counter() - started}), flush=True)


def _run_task(task: Mapping[str, str]) -> int:
    """Load, and work if that is the task; returns the bytes of the loaded weights."""
    path, dtype = Path(task["path"]), TORCH_DTYPES[task["dtype"]]
    if task["work"] == "train":
        return _train_a_step(path, Precision(task["dtype"]))
    if task["way"] == "mapped":
        return _weight_bytes(_load_mapped(path, dtype))
    base = load_base(path, denoiser_dtype=dtype)
    weights = _weight_bytes(base)
    if task["work"] == "generate":
        settings = {"steps": 2, "width": SIDE, "height": SIDE}
        ResidentPipeline(base).render(RenderConfig(prompt="a castle", **settings))
    return weights


def _load_mapped(path: Path, dtype: torch.dtype) -> LoadedBase:
    """Copy every tensor of the mapped files, then cast the UNet."""
    info = inspect_base(path)
    source, base = make_source(info), LoadedBase(info)
    for name in (name for name in COMPONENTS if name in info.parameters):
        module = build_module(*source.config(name))
        fill_weights(module, _copy_mapped(source, name, module), name)
        if name == "unet":
            for parameter in module.parameters():
                parameter.data = parameter.data.to(dtype)
            base.denoiser = module
        elif name == "vae":
            base.vae = module
        else:
            base.text_encoders.append(module)
    return base


def _copy_mapped(source: Source, component: str, module: nn.Module) -> StateDict:
    copies: StateDict = {}
    if isinstance(source, SingleFileSource):
        prefix = source.prefix(component)
        with safe_open(source.path, framework="pt") as content:
            names = [name for name in content.keys() if name.startswith(prefix)]  # noqa: SIM118
            copies = {name: content.get_tensor(name).float().clone() for name in names}
        return convert_names(component, prefix, copies, module)
    for file in {stored.file for stored in source.locate(component, module).values()}:
        with safe_open(file, framework="pt") as content:
            for name in content.keys():  # noqa: SIM118 - not a dict
                copies[name] = content.get_tensor(name).float().clone()
    return copies


class _Quiet:
    """Training callbacks that do nothing."""

    def on_event(self, event: Event) -> None:
        """Ignore the event."""

    def poll(self) -> Commands:
        """Continue."""
        return Commands()


def _train_a_step(path: Path, precision: Precision) -> int:
    config = TrainConfig(
        steps=1,
        batch_size=1,
        rank=8,
        alpha=8,
        resolution=SIDE,
        checkpoint_every=0,
        sample_every=0,
        precision=precision,
    )
    base = load_for_training(path, device="cpu", config=config)
    weights = _weight_bytes(base)
    with tempfile.TemporaryDirectory() as folder:
        images = pictures("sd15", Path(folder) / "pictures", count=2)
        train(config, images, _Quiet(), base=base, out=Path(folder) / "out", cache=None)
    return weights


def _weight_bytes(base: LoadedBase) -> int:
    parts = [base.denoiser, base.vae, *base.text_encoders]
    return sum(weight.nbytes for part in parts if part for weight in part.parameters())


def _reset_peak() -> None:
    gc.collect()
    release_memory()
    Path("/proc/self/clear_refs").write_text("5")


def _memory(what: str) -> int:
    """A value of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


if __name__ == "__main__":
    main()
