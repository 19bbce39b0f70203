"""Loads a base model for a training, in the precision that the training will use."""

import re
from collections.abc import Callable
from pathlib import Path

import torch

from worker.core.bases.family import BaseInfo, BaseModelError
from worker.core.bases.inspect import inspect_base, vae_factor
from worker.core.bases.load import LoadedBase, load_base, make_source
from worker.core.bases.threads import is_small
from worker.core.families.family import BaseFamily
from worker.core.families.networks import network_of
from worker.core.int8_linear import Int8Linear
from worker.core.training.config import BaseWeights, Precision, Targets, TrainConfig
from worker.core.training.precision import denoiser_probe, resolve_precision

USUAL_BATCH = 4


def load_for_training(
    path: Path,
    *,
    device: str,
    config: TrainConfig | None = None,
    precision: Precision = Precision.AUTO,
) -> LoadedBase:
    """The base at `path`, whose UNet is not in memory in a larger type than the training needs.

    On a GPU the UNet keeps its stored type until it is cast and moved. On a CPU a large one is read
    in the precision of `config`, or in `precision` if an earlier attempt has chosen one; without a
    config, in the one that is faster for the usual batch. The training may still choose another
    one. The text encoders are fp32, or in the type in which the family's text states are kept:
    their captions are encoded once, and then they are freed. Raises BaseModelError, also for a GPU
    without bf16 if the family overflows in fp16.
    """
    info = inspect_base(path)
    dtype = network_of(info.family).stored_text or torch.float32
    rows = int8_rows(info, config, device=device)
    if not device.startswith("cpu"):
        _check_number_types(info.family, config, device)
        return load_base(path, dtype=dtype, denoiser_dtype="stored", int8=rows)
    if is_small(info.parameters):
        return load_base(path, int8=rows)
    if config is not None and config.precision is not Precision.AUTO:
        precision = config.precision
    if precision is Precision.AUTO:
        source = make_source(info)
        denoiser, factor = source.config("unet")[1], vae_factor(source.config("vae")[1])
        side = (config and config.resolution) or info.resolution
        batch = config.batch_size if config else USUAL_BATCH
        latents = torch.Size([batch, 1, side // factor, side // factor])
        probe = denoiser_probe(denoiser, latents)
        precision = resolve_precision(precision, device=device, probe=probe)
    short = precision is Precision.BF16
    kept = torch.bfloat16 if short else torch.float32
    return load_base(path, dtype=dtype, denoiser_dtype=kept, int8=rows)


def int8_rows(
    info: BaseInfo, config: TrainConfig | None, *, device: str
) -> Callable[[str], bool] | None:
    """The test of a layer's path for those that become int8 rows; None where none does.

    Left to itself, that is where the training does not fit in the GPU's memory in bf16, by the
    family's computed need. Free memory would count a base that is held already, and change the
    arithmetic of a training that is continued.
    """
    facts = info.family.facts
    if config is None or facts.memory is None or config.base_weights is BaseWeights.BF16:
        return None
    if config.base_weights is BaseWeights.AUTO:
        if not device.startswith("cuda"):
            return None
        _, total = torch.cuda.mem_get_info(device)
        side = config.resolution or info.resolution
        is_fp32 = config.precision is Precision.FP32
        if facts.memory.training_bytes(info.parameters, side, fp32=is_fp32) <= total:
            return None
    trained = re.compile(facts.options.targets[Targets.LINEAR])
    return lambda path: trained.fullmatch(path) is not None


def is_loaded_for(base: LoadedBase, config: TrainConfig, device: str) -> bool:
    """True if the frozen weights of a base are kept in memory as this training needs them."""
    if base.info.family.facts.memory is None:
        return True
    has_rows = any(isinstance(layer, Int8Linear) for layer in base.denoiser.modules())
    return has_rows is (int8_rows(base.info, config, device=device) is not None)


def _check_number_types(family: BaseFamily, config: TrainConfig | None, device: str) -> None:
    """Raise BaseModelError for a GPU that would need fp16 if the family cannot use it.

    A GPU that only emulates bf16 computes it more slowly than fp32.
    """
    limit = family.facts.options.training.get("precision")
    if limit is None or not device.startswith("cuda"):
        return
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return
    if config is None or config.precision is not Precision.FP32:
        raise BaseModelError(
            f"{limit.reason} This GPU has no bf16. Set “Precision” to fp32, and “Frozen weights” "
            "to int8 to save memory."
        )
