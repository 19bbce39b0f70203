"""Chooses the precision of generation on a CPU by timing the denoiser in fp32 and in bf16.

bf16 is several times faster on cores with instructions for it (AMX) and slower on all others. It
has 8 significant bits, so it is used only if a small change of an adapter's weight still shows.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worker.core.families.family import Component
from worker.core.inference.config import RenderConfig
from worker.core.inference.errors import RenderCanceled
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.lora_files.canonical import LoraAdapter, LoraModule
from worker.core.lora_files.compatible import adaptable_layers, layer_weight
from worker.core.lora_files.loaded import LoadedAdapter
from worker.core.words import RenderPrecision

MIN_SPEEDUP = 1.3
MIN_EFFECT, MAX_EFFECT = 0.5, 2.0
WEIGHT_STEP = 0.05
PROBE_RANK = 4
PROBE_STRENGTH = 0.01  # size of the change at weight 1 in relation to the layer: a weak adapter


@dataclass(frozen=True)
class PrecisionChoice:
    """A precision and why it was chosen.

    `fp32_seconds` and `bf16_seconds` are for a call of the UNet; `step_effect` is the share of a
    weight step of WEIGHT_STEP that is left in bf16. None: not measured, because this CPU
    has no fast bf16 operations.
    """

    precision: RenderPrecision
    fp32_seconds: float | None = None
    bf16_seconds: float | None = None
    step_effect: float | None = None


def choose_precision(
    pipeline: ResidentPipeline, config: RenderConfig, *, on_call: Callable[[], bool]
) -> PrecisionChoice:
    """Time the UNet of an fp32 pipeline in both types at the size of `config`, then cast it to the
    better one.

    `on_call` is called before each call of the UNet; when it returns False, RenderCanceled is
    raised. Afterwards the pipeline has no adapters. Raises BaseModelError.
    """
    if not _has_bf16_kernels():
        return PrecisionChoice(RenderPrecision.FP32)
    pipeline.set_adapters([])
    _, first = _time_call(pipeline, config, on_call)
    _, second = _time_call(pipeline, config, on_call)
    pipeline.cast_denoiser(RenderPrecision.BF16)
    plain, third = _time_call(pipeline, config, on_call)
    effect = _merge_probe(pipeline)
    changed, fourth = _time_call(pipeline, config, on_call)
    pipeline.set_adapters([])
    if torch.equal(plain, changed):
        effect = 0.0
    choice = decide(min(first, second), min(third, fourth), effect)
    if choice.precision is not pipeline.precision:
        pipeline.cast_denoiser(choice.precision)
    return choice


def decide(fp32_seconds: float, bf16_seconds: float, step_effect: float) -> PrecisionChoice:
    """bf16 if it is clearly faster and a weight step keeps its effect, else fp32."""
    is_faster = fp32_seconds >= MIN_SPEEDUP * bf16_seconds
    is_fine = MIN_EFFECT <= step_effect <= MAX_EFFECT
    precision = RenderPrecision.BF16 if is_faster and is_fine else RenderPrecision.FP32
    return PrecisionChoice(precision, fp32_seconds, bf16_seconds, step_effect)


def _time_call(
    pipeline: ResidentPipeline, config: RenderConfig, on_call: Callable[[], bool]
) -> tuple[Tensor, float]:
    """(the prediction, the seconds of the call)."""
    if not on_call():
        raise RenderCanceled
    started = time.perf_counter()
    predicted = pipeline.predict_once(config)
    return predicted, time.perf_counter() - started


def _merge_probe(pipeline: ResidentPipeline) -> float:
    """Merge the probe at WEIGHT_STEP; returns the share of its change that the weights show.

    That is the part of the change along the probe's: rounding of single elements is orthogonal to
    it, a change that is rounded away is missing.
    """
    layers = adaptable_layers(Component.DENOISER, pipeline.base.denoiser)
    attention = re.compile(pipeline.base.info.family.facts.options.targets["attention"])
    probe = _make_probe({path: one for path, one in layers.items() if attention.fullmatch(path)})
    before = {module.path: layer_weight(layers[module.path]).clone() for module in probe.modules}
    pipeline.set_adapters([LoadedAdapter("precision probe", probe, WEIGHT_STEP, WEIGHT_STEP)])
    along = size = 0.0
    for module in probe.modules:
        intended = WEIGHT_STEP * module.delta()
        change = layer_weight(layers[module.path]).float() - before[module.path].float()
        along += float((change * intended).sum())
        size += float(intended.square().sum())
    return along / size


def _make_probe(layers: Mapping[str, nn.Module]) -> LoraAdapter:
    """A weak random adapter of these layers."""
    generator = torch.Generator().manual_seed(0)
    modules = []
    for path, layer in layers.items():
        weight = layer_weight(layer)
        rows, columns = weight.flatten(1).shape
        size = PROBE_STRENGTH * float(weight.float().square().mean().sqrt())
        up = torch.randn(rows, PROBE_RANK, generator=generator) * (size / PROBE_RANK**0.5)
        down = torch.randn(PROBE_RANK, columns, generator=generator)
        up = up.view(rows, PROBE_RANK, *(1 for _ in weight.shape[2:]))
        down = down.view(PROBE_RANK, *weight.shape[1:])
        modules.append(LoraModule(Component.DENOISER, path, down, up, alpha=PROBE_RANK))
    return LoraAdapter(tuple(modules))


def _has_bf16_kernels() -> bool:
    """True if torch has fast bf16 operations for this CPU.

    Without them a call of a large UNet takes minutes; with them it is still slower on some CPUs.
    """
    return torch._C._has_mkldnn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
