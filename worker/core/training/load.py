"""Loads a base model for a training, in the precision that the training will use."""

from pathlib import Path

import torch

from worker.core.bases.inspect import inspect_base, vae_factor
from worker.core.bases.load import LoadedBase, load_base, make_source
from worker.core.bases.threads import is_small
from worker.core.training.config import Precision, TrainConfig
from worker.core.training.precision import convolution_probe, resolve_precision

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
    one. The text encoders are fp32: their captions are encoded once, and then they are freed.
    Raises BaseModelError.
    """
    if not device.startswith("cpu"):
        return load_base(path, denoiser_dtype="stored")
    info = inspect_base(path)
    if is_small(info.parameters):
        return load_base(path)
    if config is not None and config.precision is not Precision.AUTO:
        precision = config.precision
    if precision is Precision.AUTO:
        source = make_source(info)
        unet, factor = source.config("unet")[1], vae_factor(source.config("vae")[1])
        side = (config and config.resolution) or info.resolution
        batch = config.batch_size if config else USUAL_BATCH
        width = unet["block_out_channels"][0]
        latents = torch.Size([batch, width, side // factor, side // factor])
        probe = convolution_probe(latents, width)
        precision = resolve_precision(precision, device=device, probe=probe)
    short = precision is Precision.BF16
    return load_base(path, denoiser_dtype=torch.bfloat16 if short else torch.float32)
