"""One look of the UNet at noisy latents, the same for training and for samples."""

from typing import Any

from torch import Tensor

from worker.core.bases.text import PromptEmbeddings


def predict(
    unet: Any, latents: Tensor, timesteps: Tensor, text: PromptEmbeddings, time_ids: Tensor
) -> Tensor:
    """What the UNet predicts for latents (b, c, h, w), fp32.

    `time_ids` (b, 6) says to an SDXL UNet how large a picture was and where it was cut; the
    others, whose texts have no pooled state, are not told.
    """
    added = None
    if text.pooled is not None:
        pooled = text.pooled.to(unet.dtype)
        added = {"text_embeds": pooled, "time_ids": time_ids.to(pooled)}
    (predicted,) = unet(
        latents.to(unet.dtype),
        timesteps,
        encoder_hidden_states=text.hidden.to(unet.dtype),
        added_cond_kwargs=added,
        return_dict=False,
    )
    return predicted.float()  # type: ignore[no-any-return]
