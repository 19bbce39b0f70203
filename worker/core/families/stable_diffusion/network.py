"""The UNets of SD 1.x, SD 2.x and SDXL, and their CLIP text encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from worker.core.families.family import BaseFamily
from worker.core.families.network import NoiseSettings, number_type
from worker.core.families.stable_diffusion.diffusion import Diffusion
from worker.core.families.text_states import TextStates
from worker.core.words import SamplerName


@dataclass(frozen=True, slots=True)
class UNetNetwork:
    """SD 1 and 2 read the last hidden state after the final norm (SD 2's encoder is stored without
    its last layer), or with CLIP skip n > 1 the n-th last state after the same norm.

    With `reads_pooled_text` (SDXL), the states before the last layer of both encoders are
    concatenated, and the second encoder's pooled text is read as well.
    """

    reads_pooled_text: bool = False
    stored_text: ClassVar[torch.dtype | None] = None

    def process(
        self,
        scheduler_config: Mapping[str, Any],
        settings: NoiseSettings,
        *,
        prediction: str,
        device: torch.device | str,
    ) -> Diffusion:
        """See Network."""
        return Diffusion.of(scheduler_config, settings, prediction=prediction, device=device)

    def sampler(
        self, name: SamplerName | None, scheduler_config: Mapping[str, Any], *, prediction: str
    ) -> Any:
        """See Network; DDIM is the usual one."""
        from worker.core.families.stable_diffusion.samplers import make_sampler

        return make_sampler(name or SamplerName.DDIM, scheduler_config, prediction_type=prediction)

    def middle_level(self, sampler: Any) -> Tensor:
        """See Network."""
        return torch.tensor(len(sampler.alphas_cumprod) // 2)

    def encode(
        self,
        encoders: Sequence[Any],
        tokenizers: Sequence[Any],
        prompts: Sequence[str],
        *,
        device: torch.device | str,
        clip_skip: int = 1,
    ) -> TextStates:
        """See Network. Gradients flow when the encoders' parameters require them."""
        ids = [
            _token_ids(tokenizer, prompts, length=max_tokens(encoder)).to(device)
            for tokenizer, encoder in zip(tokenizers, encoders, strict=True)
        ]
        return self.encode_tokens(encoders, ids, clip_skip=clip_skip)

    def encode_tokens(
        self, encoders: Sequence[Any], token_ids: Sequence[Tensor], *, clip_skip: int = 1
    ) -> TextStates:
        """The states of token ids (prompts, tokens), of each text encoder its own."""
        states, pooled = [], None
        for ids, encoder in zip(token_ids, encoders, strict=True):
            if self.reads_pooled_text:
                output = encoder(ids, output_hidden_states=True)
                states.append(output.hidden_states[-2])
                pooled = getattr(output, "text_embeds", None)
            elif clip_skip > 1:
                output = encoder(ids, output_hidden_states=True)
                states.append(_final_norm(encoder)(output.hidden_states[-clip_skip]))
            else:
                states.append(encoder(ids).last_hidden_state)
        return TextStates(torch.cat(states, dim=-1), pooled)

    def unread(self, tokenizers: Sequence[Any], prompt: str) -> str:
        """See Network."""
        ends = [len(prompt)]
        for tokenizer in tokenizers:
            tokens = tokenizer(
                prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False
            )
            size = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
            ends += [start for start, _ in tokens.offset_mapping[size : size + 1]]
        return prompt[min(ends) :].strip()

    def predict(
        self, denoiser: Any, latents: Tensor, levels: Tensor, text: TextStates, sizes: Tensor
    ) -> Tensor:
        """See Network. UNets whose text has no pooled state do not get the sizes."""
        dtype = number_type(denoiser)
        added = None
        if text.pooled is not None:
            pooled = text.pooled.to(dtype)
            added = {"text_embeds": pooled, "time_ids": sizes.to(pooled)}
        (predicted,) = denoiser(
            latents.to(dtype),
            levels,
            encoder_hidden_states=text.hidden.to(dtype),
            added_cond_kwargs=added,
            return_dict=False,
        )
        return predicted.float()  # type: ignore[no-any-return]


NETWORKS = {
    BaseFamily.SD1: UNetNetwork(),
    BaseFamily.SD2: UNetNetwork(),
    BaseFamily.SDXL: UNetNetwork(reads_pooled_text=True),
}


def max_tokens(encoder: object) -> int:
    """The maximum number of tokens, with start and end tokens: 77 for CLIP."""
    return int(encoder.config.max_position_embeddings)  # type: ignore[attr-defined]


def _final_norm(encoder: Any) -> Any:
    """The final norm; in transformers 5 it is an attribute of the model itself."""
    return getattr(encoder, "text_model", encoder).final_layer_norm


def _token_ids(tokenizer: object, prompts: Sequence[str], *, length: int) -> Tensor:
    tokens = tokenizer(  # type: ignore[operator]
        list(prompts),
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )
    return tokens.input_ids  # type: ignore[no-any-return]
