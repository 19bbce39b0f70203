"""Measures what the playground does beside diffusers and peft: `python -m bench.preview`.

Each figure is measured for both in one process on one thread, in turn, as the median of CPU time.
The other side is diffusers' pipeline with the same weights and scheduler, and peft's layers.

weights   a new weight for three adapters
adapter   a new adapter, from its file to the weights, beside one that is in use
call      one call of the UNet with three adapters, as a share of one without
images    four images of one request
strip     an image at nine weights of three adapters; also ours one after another

The adapters are random, of rank 8, in all layers of the UNet's attention. Before anything is timed
the images of both sides are compared.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from safetensors.torch import save_file

from bench.bases import BASES
from worker.core.bases.load import LoadedBase
from worker.core.families.family import Component
from worker.core.families.stable_diffusion.samplers import make_scheduler
from worker.core.inference import rank_form
from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.lora_files.canonical import LoraAdapter, LoraModule, load_adapter, save_adapter
from worker.core.lora_files.compatible import adaptable_layers
from worker.core.lora_files.loaded import LoadedAdapter
from worker.runtime.device import describe_processor

PROMPT, GUIDANCE, SEED = "a red apple", 4.0, 7
ADAPTERS, RANK, STRENGTH = 3, 8, 0.02
IMAGES = 4
STRIP = [-0.5 + 0.25 * place for place in range(9)]
NEW = "new"
Action = Callable[[], object]


@dataclass(frozen=True)
class Files:
    """The files of one adapter: ours, and one in peft's layout."""

    ours: Path
    peft: Path


class Theirs:
    """diffusers' pipeline, whose UNet gets peft's layers."""

    def __init__(self, base: LoadedBase, steps: int) -> None:
        scheduler = make_scheduler(base.scheduler_config, prediction_type=base.info.prediction_type)
        self._pipe: Any = StableDiffusionPipeline(
            vae=copy.deepcopy(base.vae),
            text_encoder=copy.deepcopy(base.text_encoders[0]),
            tokenizer=base.tokenizers[0],
            unet=copy.deepcopy(base.denoiser),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        self._pipe.set_progress_bar_config(disable=True)
        self._side, self._steps = base.info.resolution, steps
        self.unet = self._pipe.unet

    def load(self, name: str, files: Files) -> None:
        """Read an adapter from its file."""
        with warnings.catch_warnings(action="ignore"):  # that there is an adapter already
            self._pipe.load_lora_weights(files.peft, adapter_name=name)

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Use these adapters with these weights."""
        self._pipe.set_adapters(list(weights), list(weights.values()))

    def remove(self, name: str) -> None:
        """Forget an adapter."""
        self._pipe.delete_adapters(name)

    def images(self, count: int = 1) -> list[Image.Image]:
        """Images of one request, in one batch."""
        generators = [torch.Generator().manual_seed(SEED + number) for number in range(count)]
        return self._pipe(  # type: ignore[no-any-return]
            PROMPT,
            num_inference_steps=self._steps,
            guidance_scale=GUIDANCE,
            width=self._side,
            height=self._side,
            num_images_per_prompt=count,
            generator=generators,
        ).images


class Ours:
    """The resident pipeline."""

    def __init__(self, base: LoadedBase, steps: int) -> None:
        self._pipeline = ResidentPipeline(base)
        self._config = RenderConfig(prompt=PROMPT, guidance=GUIDANCE, seed=SEED, steps=steps)
        self._adapters: dict[str, LoraAdapter] = {}
        self._loads = 0
        self._names: dict[str, str] = {}
        self.unet = base.denoiser

    def load(self, name: str, files: Files) -> None:
        """Read an adapter from its file."""
        self._loads += 1
        self._names[name] = f"{name}-{self._loads}"  # never merged before
        self._adapters[name] = load_adapter(files.ours)

    def stack(self, weights: Mapping[str, float]) -> list[LoadedAdapter]:
        """These adapters with these weights."""
        return [LoadedAdapter(self._names[n], self._adapters[n], w) for n, w in weights.items()]

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Use these adapters with these weights."""
        self._pipeline.set_adapters(self.stack(weights))

    def images(self, count: int = 1) -> list[Image.Image]:
        """Images of one request."""
        config = self._config.model_copy(update={"count": count})
        return [rendered.image for rendered in self._pipeline.render(config)]

    def strip(self, stacks: Sequence[Mapping[str, float]]) -> list[Image.Image]:
        """An image for each of these weights."""
        drawn = self._pipeline.render_weights(self._config, [self.stack(one) for one in stacks])
        return [rendered.image for rendered in drawn]


@dataclass(frozen=True)
class Bench:
    """Both sides with the same base and the same adapters in use."""

    theirs: Theirs
    ours: Ours
    files: Sequence[Files]
    repeats: int

    def measure(self, first: Action, *others: Action, after: Action = lambda: None) -> list[float]:
        """Milliseconds of CPU time of each action, medians, in turn; `after` is not timed."""
        times: list[list[float]] = [[] for _ in (first, *others)]
        for number in range(self.repeats + 1):
            for action, taken in zip((first, *others), times, strict=True):
                started = time.process_time()
                action()
                if number:  # the first builds caches
                    taken.append((time.process_time() - started) * 1_000)
            after()
        return [statistics.median(taken) for taken in times]

    def compare_images(self) -> int:
        """The largest difference between both sides' images in levels of 255."""
        pairs = [(self.theirs.images(IMAGES), self.ours.images(IMAGES))]
        weights = _weights(0.5)
        for side in (self.theirs, self.ours):
            side.set_weights(weights)
        pairs.append((self.theirs.images(), self.ours.images()))
        pairs.append((self.theirs.images(), self.ours.strip([weights, _weights(1.0)])[:1]))
        return max(_difference(*both) for pair in pairs for both in zip(*pair, strict=True))

    def weights(self) -> str:
        """A new weight for three adapters."""
        chance = iter(np.random.default_rng(0).uniform(-1, 1, 10_000))
        theirs, ours = self.measure(
            lambda: self.theirs.set_weights(_weights(float(next(chance)))),
            lambda: self.ours.set_weights(_weights(float(next(chance)))),
        )
        return _row("new weight of three adapters", theirs, ours)

    def adapter(self) -> str:
        """A new adapter beside one that is in use."""
        both = {"0": 1.0, NEW: 1.0}

        def start_again() -> None:
            self.theirs.remove(NEW)
            for side in (self.theirs, self.ours):
                side.set_weights({"0": 1.0})

        def add(side: Theirs | Ours) -> None:
            side.load(NEW, self.files[-1])
            side.set_weights(both)

        for side in (self.theirs, self.ours):
            side.set_weights({"0": 1.0})
        times = self.measure(lambda: add(self.theirs), lambda: add(self.ours), after=start_again)
        return _row("new adapter beside one in use", *times)

    def call(self, plain: Action) -> str:
        """A call of the UNet with three adapters, as a share of one without."""
        for side in (self.theirs, self.ours):
            side.set_weights(_weights(1.0))
        alone, theirs, ours = self.measure(
            plain, lambda: _call(self.theirs.unet), lambda: _call(self.ours.unet)
        )
        shares = f"{theirs / alone:.2f} and {ours / alone:.2f} of one without"
        return _row("UNet call with three adapters", theirs, ours) + f"  {shares}"

    def images(self) -> str:
        """Four images of one request, with three adapters in use."""
        times = self.measure(lambda: self.theirs.images(IMAGES), lambda: self.ours.images(IMAGES))
        return _row("four images of one request", *times)

    def strip(self) -> str:
        """An image at nine weights."""
        stacks = [_weights(weight) for weight in STRIP]

        def one_by_one() -> None:
            for weights in stacks:
                self.theirs.set_weights(weights)
                self.theirs.images()

        def ours_one_by_one() -> None:
            with _never_beside():
                self.ours.strip(stacks)

        theirs, ours, alone = self.measure(
            one_by_one, lambda: self.ours.strip(stacks), ours_one_by_one
        )
        share = f"{ours / alone:.2f} of ours one after another ({alone:.0f} ms)"
        return _row("strip of nine weights", theirs, ours) + f"  {share}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table for each base."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", action="append", choices=BASES, help="only this (repeatable)")
    parser.add_argument("--steps", type=int, default=8, help="steps of an image")
    parser.add_argument("--repeats", type=int, default=5, help="times that each is measured")
    wanted = parser.parse_args(arguments)
    diffusers_logging.set_verbosity_error()
    torch.set_num_threads(1)
    print(f"{describe_processor() or platform.machine()}, one thread, torch {torch.__version__}")
    for base in wanted.base or ["starter", "sdxl-count"]:
        with tempfile.TemporaryDirectory() as folder:
            _measure_base(base, Path(folder), steps=wanted.steps, repeats=wanted.repeats)


def _measure_base(name: str, folder: Path, *, steps: int, repeats: int) -> None:
    base = BASES[name]()
    files = [_write_adapter(base, folder, number) for number in range(ADAPTERS + 1)]
    theirs, ours = Theirs(base, steps), Ours(base, steps)
    with torch.inference_mode():
        plain = copy.deepcopy(base.denoiser)
    for number in range(ADAPTERS):
        for side in (theirs, ours):
            side.load(f"{number}", files[number])
    for side in (theirs, ours):
        side.set_weights(_weights(0.0))
    bench = Bench(theirs, ours, files, repeats)
    print(
        f"\n{name}, {steps} steps: images differ by at most {bench.compare_images()} of 255 levels"
    )
    print(f"{'CPU ms':32} {'peft':>8} {'ours':>8} {'ratio':>6}")
    print(bench.weights(), flush=True)
    print(bench.call(lambda: _call(plain)), flush=True)
    print(bench.images(), flush=True)
    print(bench.strip(), flush=True)
    print(bench.adapter(), flush=True)


def _weights(weight: float) -> dict[str, float]:
    """The weights of all three adapters, each another one."""
    return {f"{number}": weight * (1 - number / 10) for number in range(ADAPTERS)}


def _write_adapter(base: LoadedBase, folder: Path, number: int) -> Files:
    """A random adapter of the UNet's attention, as both files; its alpha is its rank."""
    generator = torch.Generator().manual_seed(number)
    modules, tensors = [], {}
    for path, layer in adaptable_layers(Component.DENOISER, base.denoiser).items():
        if ".attn" not in path:
            continue
        rows, columns = layer.weight.shape
        down = torch.randn(RANK, columns, generator=generator) / columns**0.5
        up = torch.randn(rows, RANK, generator=generator) * STRENGTH
        modules.append(LoraModule(Component.DENOISER, path, down, up, RANK))
        tensors |= {f"unet.{path}.lora_A.weight": down, f"unet.{path}.lora_B.weight": up}
    files = Files(folder / f"{number}.safetensors", folder / f"peft-{number}.safetensors")
    save_adapter(LoraAdapter(tuple(modules)), files.ours)
    save_file(tensors, files.peft)
    return files


def _call(unet: Any) -> None:
    """One call for one image with guidance."""
    side, config = unet.config.sample_size, unet.config
    noise = torch.ones(2, config.in_channels, side, side)
    text = torch.ones(2, 77, config.cross_attention_dim)
    with torch.inference_mode():
        unet(noise, torch.tensor(500), encoder_hidden_states=text)


@contextmanager
def _never_beside() -> Iterator[None]:
    """Strips one after another, with merged weights."""
    usual = rank_form.MAX_ADDED_SHARE
    rank_form.MAX_ADDED_SHARE = -1.0
    try:
        yield
    finally:
        rank_form.MAX_ADDED_SHARE = usual


def _difference(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


def _row(what: str, theirs: float, ours: float) -> str:
    return f"{what:32} {theirs:8.1f} {ours:8.1f} {ours / theirs:6.2f}"


if __name__ == "__main__":
    main()
