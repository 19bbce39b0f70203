"""What transformers have in common that learn a flow and whose text encoder is a chat model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from worker.core.families.chat import fit_in_template
from worker.core.families.flow import Flow, FlowSampler, shifted
from worker.core.families.network import NoiseSettings


class FlowNetwork:
    """The parts of Network that these families share; `thinking`: whether the chat model may."""

    stored_text = torch.bfloat16
    thinking: bool

    def process(
        self,
        scheduler_config: Mapping[str, Any],
        settings: NoiseSettings,
        *,
        prediction: str,
        device: torch.device | str,
    ) -> Flow:
        """See Network. The shift of a training is its own setting, not the base's for drawing."""
        return Flow.of(settings)

    def middle_level(self, sampler: FlowSampler) -> Tensor:
        """See Network."""
        return shifted(torch.tensor(0.5), sampler.shift)

    def unread(self, tokenizers: Sequence[Any], prompt: str) -> str:
        """See Network."""
        _, read = fit_in_template(tokenizers[0], prompt, thinking=self.thinking)
        return prompt[len(read) :].strip()
