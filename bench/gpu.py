"""Measures training steps on a GPU beside a plain loop: `python -m bench.gpu`.

Bases of the published shapes with random weights, so nothing is downloaded: SD 1.5 at 512 pixels,
SDXL, Z-Image and FLUX.2 klein at 1024. Brushwork's own step and the loop of diffusers' official
scripts (adapter by peft, bf16 autocast, AdamW, latents and states made before) follow one another
at the same rank, targets and pixels. Each row: seconds of a step (median) and the peak of memory on
the device.

`--device cpu --tiny` runs the same code on few channels, to try the command without a GPU.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import Flux2Transformer2DModel, UNet2DConditionModel, ZImageTransformer2DModel
from peft import LoraConfig
from torch import nn

from bench.bases import SCHEDULE, fill_randomly
from bench.training import heading
from worker.core.families.klein.network import KleinNetwork
from worker.core.families.network import Network, Process
from worker.core.families.stable_diffusion.network import UNetNetwork
from worker.core.families.text_states import TextStates
from worker.core.families.zimage.network import ZImageNetwork
from worker.core.training.config import Precision, TrainConfig
from worker.core.training.data.batches import Batch
from worker.core.training.learner import Learner, Model

WARM_UP = 2
FLOW = {"shift": 3.0}


@dataclass(frozen=True)
class Subject:
    """A base: its denoiser, what it reads, and the side of its latents at `pixels`."""

    pixels: int
    network: Network
    build: Callable[[bool], nn.Module]
    channels: int
    latent_side: int
    tokens: int
    width: Callable[[Any], int]
    schedule: dict[str, Any]
    pooled: int = 0


def _sd15(tiny: bool) -> nn.Module:
    wide = {"cross_attention_dim": 768, "attention_head_dim": 8}
    few = wide | {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1}
    return UNet2DConditionModel(**(few if tiny else wide))


def _sdxl(tiny: bool) -> nn.Module:
    blocks = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (32, 32, 32) if tiny else (320, 640, 1280),
        "transformer_layers_per_block": (1, 1, 1) if tiny else (1, 2, 10),
        "attention_head_dim": (2, 2, 2) if tiny else (5, 10, 20),
    }
    return UNet2DConditionModel(
        **blocks,
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def _zimage(tiny: bool) -> nn.Module:
    small = {"dim": 64, "n_layers": 2, "n_heads": 2, "n_kv_heads": 2, "axes_dims": [8, 12, 12]}
    return ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), **(small if tiny else {})
    )


def _klein(tiny: bool) -> nn.Module:
    large = {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24}
    small = {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 1}
    return Flux2Transformer2DModel(
        joint_attention_dim=7680, guidance_embeds=False, **(small if tiny else large)
    )


SUBJECTS = {
    "sd15": Subject(
        512, UNetNetwork(), _sd15, 4, 64, 77, lambda unet: unet.config.cross_attention_dim, SCHEDULE
    ),
    "sdxl": Subject(
        1024,
        UNetNetwork(reads_pooled_text=True),
        _sdxl,
        4,
        128,
        77,
        lambda unet: unet.config.cross_attention_dim,
        SCHEDULE,
        pooled=1280,
    ),
    "zimage": Subject(
        1024, ZImageNetwork(), _zimage, 16, 128, 100, lambda net: net.config.cap_feat_dim, FLOW
    ),
    "klein": Subject(
        1024, KleinNetwork(), _klein, 128, 64, 512, lambda net: net.config.joint_attention_dim, FLOW
    ),
}


@dataclass(frozen=True)
class Task:
    """One row: the base and how it is trained."""

    name: str
    batch_size: int
    rank: int
    checkpointing: bool
    device: str
    tiny: bool

    @property
    def subject(self) -> Subject:
        """Its base."""
        return SUBJECTS[self.name]

    @property
    def side(self) -> int:
        """That of the latents."""
        return 16 if self.tiny else self.subject.latent_side

    def config(self) -> TrainConfig:
        """The training that both contenders take."""
        return TrainConfig(rank=self.rank, alpha=self.rank, batch_size=self.batch_size)

    def text(self, denoiser: Any) -> TextStates:
        """Random states of captions, as the text encoders would give them."""
        subject, count = self.subject, self.batch_size
        hidden = torch.randn(count, subject.tokens, subject.width(denoiser), device=self.device)
        pooled = torch.randn(count, subject.pooled, device=self.device) if subject.pooled else None
        lengths = (subject.tokens,) * count if isinstance(subject.network, ZImageNetwork) else None
        return TextStates(hidden, pooled, lengths)

    def batch(self, process: Process, generator: torch.Generator) -> Batch:
        """Random latents with noise."""
        count, side = self.batch_size, self.side
        latents, noise = torch.randn(
            2, count, self.subject.channels, side, side, generator=generator
        )
        sizes = torch.full((count, 6), float(self.subject.pixels))
        levels = process.draw_levels(count, generator)
        return Batch(tuple(range(count)), ("",) * count, latents, noise, levels, sizes)

    def denoiser(self) -> Any:
        """The frozen network in bf16 on the device, with random weights."""
        with torch.device("meta"):
            made = self.subject.build(self.tiny)
        fill_randomly(made, device=self.device, dtype=torch.bfloat16)
        made.requires_grad_(False).train()
        if self.checkpointing:
            made.enable_gradient_checkpointing()
        return made


def ours(task: Task) -> Iterator[None]:
    """Brushwork's own steps, one for each `next`."""
    from worker.core.training.adapter.lora import inject_adapter

    denoiser, config = task.denoiser(), task.config()
    subject, generator = task.subject, torch.Generator().manual_seed(0)
    lora = inject_adapter(denoiser, [], config, generator=generator, family=_family(task.name))
    text = task.text(denoiser)
    process = subject.network.process(
        subject.schedule, config, prediction="epsilon", device=task.device
    )
    model = Model(subject.network, denoiser, lambda _: text, process, Precision.BF16, task.device)
    learner = Learner(model, lora, config)
    step = 0
    while True:
        learner.learn([task.batch(process, generator)], step=step)
        step += 1
        yield


def plain(task: Task) -> Iterator[None]:
    """The steps of a loop like diffusers' scripts."""
    denoiser, config = task.denoiser(), task.config()
    subject, generator = task.subject, torch.Generator().manual_seed(0)
    denoiser.add_adapter(
        LoraConfig(
            r=task.rank,
            lora_alpha=task.rank,
            init_lora_weights="gaussian",
            target_modules=_family(task.name).facts.options.targets["attention"],
        )
    )
    trained = [weight for weight in denoiser.parameters() if weight.requires_grad]
    for weight in trained:
        weight.data = weight.data.float()
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate)
    text = task.text(denoiser)
    process = subject.network.process(
        subject.schedule, config, prediction="epsilon", device=task.device
    )
    while True:
        batch = task.batch(process, generator)
        latents, noise = batch.latents.to(task.device), batch.noise.to(task.device)
        levels, sizes = batch.levels.to(task.device), batch.sizes.to(task.device)
        with torch.autocast(task.device, torch.bfloat16):
            noised = process.add_noise(latents, noise, levels)
            predicted = subject.network.predict(denoiser, noised, levels, text, sizes)
        loss = (predicted - process.target(latents, noise, levels)).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())  # the script reports it in every step
        yield


def _family(name: str) -> Any:
    from worker.core.families.family import BaseFamily

    return BaseFamily({"sd15": "sd1"}.get(name, name))


def measure(way: Callable[[Task], Iterator[None]], task: Task, steps: int) -> tuple[float, float]:
    """(median seconds of a step, peak GiB on the device); NaN where it does not fit."""
    on_gpu = task.device.startswith("cuda")
    gc.collect()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds, taken = [], way(task)
    try:
        for _ in range(WARM_UP + steps):
            started = time.perf_counter()
            next(taken)
            if on_gpu:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    except torch.OutOfMemoryError:
        return float("nan"), float("nan")
    finally:
        taken.close()  # type: ignore[attr-defined]
    peak = torch.cuda.max_memory_allocated() / 2**30 if on_gpu else 0.0
    return statistics.median(seconds[WARM_UP:]), peak


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the selected bases and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", action="append", choices=SUBJECTS, help="only this (repeatable)")
    parser.add_argument("--batch", action="append", type=int, help="batch sizes (default: 1, 4)")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="measured steps of each row")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="few channels, to try the command")
    options = parser.parse_args(arguments)
    print(heading("bench.gpu"))
    if options.device.startswith("cuda"):
        print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    print(f"\nrank {options.rank}, attention, bf16; seconds of a step and peak GiB")
    row = "{:<8} {:>5} {:>6} {:>14} {:>8} {:>8} {:>8} {:>8} {:>6}"
    print(
        row.format("base", "side", "batch", "checkpointing", "ours", "GiB", "plain", "GiB", "ratio")
    )
    for name in options.base or SUBJECTS:
        for batch in options.batch or (1, 4):
            for checkpointing in (False, True):
                task = Task(name, batch, options.rank, checkpointing, options.device, options.tiny)
                mine, my_peak = measure(ours, task, options.steps)
                theirs, their_peak = measure(plain, task, options.steps)
                side = "tiny" if options.tiny else f"{task.subject.pixels}"
                cells = [f"{mine:.3f}", f"{my_peak:.1f}", f"{theirs:.3f}", f"{their_peak:.1f}"]
                checked = "yes" if checkpointing else "no"
                print(row.format(name, side, batch, checked, *cells, f"{mine / theirs:.2f}"))


if __name__ == "__main__":
    main()
