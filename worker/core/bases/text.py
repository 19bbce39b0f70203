"""Encodes prompts into the text states that the denoiser of a base reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from worker.core.bases.load import LoadedBase
from worker.core.families.networks import network_of
from worker.core.families.text_states import TextStates


def encode_prompts(
    base: LoadedBase, prompts: Sequence[str], *, device: torch.device | str, clip_skip: int = 1
) -> TextStates:
    """The states of `prompts` in the form that the base's denoiser was trained with."""
    network = network_of(base.info.family)
    encoders, tokenizers = base.text_encoders, base.tokenizers
    return network.encode(encoders, tokenizers, prompts, device=device, clip_skip=clip_skip)
