"""What transformers have in common that learn a flow and whose text encoder is a chat model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from worker.core.families.facts.family_facts import MAX_TEXT_TOKENS
from worker.core.families.flow import Flow, FlowSampler, shifted
from worker.core.families.network import FamilyError, NoiseSettings
from worker.core.families.text_states import TextStates


class FlowNetwork:
    """The parts of Network that these families share.

    `thinking`: whether the chat model may. `pads`: all prompts are as long as the longest may be.
    """

    stored_text = torch.bfloat16
    thinking: bool
    pads: bool

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

    def encode(
        self,
        encoders: Sequence[Any],
        tokenizers: Sequence[Any],
        prompts: Sequence[str],
        *,
        device: torch.device | str,
        clip_skip: int = 1,
    ) -> TextStates:
        """See Network. Raises FamilyError for a tokenizer without a chat template."""
        (encoder,), (tokenizer,) = encoders, tokenizers
        found = [fit_in_template(tokenizer, one, thinking=self.thinking)[0] for one in prompts]
        length = MAX_TEXT_TOKENS if self.pads else max(map(len, found))
        ids = torch.full((len(prompts), length), tokenizer.pad_token_id or 0, device=device)
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for row, tokens in enumerate(found):
            ids[row, : len(tokens)] = torch.tensor(tokens, device=device)
            mask[row, : len(tokens)] = True
        return self.states(encoder, ids, mask)

    def states(self, encoder: Any, ids: Tensor, mask: Tensor) -> TextStates:
        """What the denoiser reads of tokens (prompts, tokens); the mask is false for padding."""
        raise NotImplementedError

    def unread(self, tokenizers: Sequence[Any], prompt: str) -> str:
        """See Network."""
        _, read = fit_in_template(tokenizers[0], prompt, thinking=self.thinking)
        return prompt[len(read) :].strip()


def states_after(encoder: Any, layers: Sequence[int], ids: Tensor, mask: Tensor) -> list[Tensor]:
    """The states (prompts, tokens, width) after so many layers of an encoder, for each count.

    They are taken where they arise: all states of a large encoder would need gigabytes. An encoder
    may have lost the layers behind the last count, which nobody reads.
    """
    states: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    handles = [encoder.layers[count - 1].register_forward_hook(keep) for count in layers]
    try:
        encoder(input_ids=ids, attention_mask=mask, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return states


def fit_in_template(tokenizer: Any, prompt: str, *, thinking: bool) -> tuple[list[int], str]:
    """The tokens of a prompt in the chat template, and as much of the prompt as they have room for.

    The template stays whole, as transformers saw it in training; cutting the tokens would cut off
    its end.
    """
    kept = prompt
    ids = _in_template(tokenizer, kept, thinking)
    while (excess := len(ids) - MAX_TEXT_TOKENS) > 0:
        if not kept:
            raise FamilyError("The chat template of the base model's tokenizer is too long.")
        tokens = tokenizer(
            kept, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        starts = [start for start, _ in tokens.offset_mapping]
        kept = kept[: starts[-excess]] if excess < len(starts) else ""
        ids = _in_template(tokenizer, kept, thinking)
    return ids, kept


def _in_template(tokenizer: Any, prompt: str, thinking: bool) -> list[int]:
    """The tokens of a prompt as one turn of a chat, of which the model may think."""
    if not tokenizer.chat_template:
        raise FamilyError(
            "The tokenizer of the base model has no chat template (chat_template.jinja). Download "
            "the base model again."
        )
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=thinking,
    )
    return list(tokenizer(text, verbose=False).input_ids)
