"""What families have in common whose transformers learn a flow."""

from __future__ import annotations

from collections.abc import Mapping

from worker.core.families.facts.family_facts import FamilyOptions, Limit
from worker.core.words import RenderPrecision, SamplerName


def flow_options(label: str, targets: Mapping[str, str]) -> FamilyOptions:
    """The settings of the family of this label; `targets`: see FamilyOptions."""
    no_clip = Limit(reason=f"{label} has no CLIP text encoder: leave CLIP skip empty.")
    return FamilyOptions(
        training=_training(label),
        drawing={"clip_skip": no_clip},
        targets=targets,
        side_step=16,
        samplers=(SamplerName.EULER, SamplerName.DPMPP_2M),
        has_single_file=False,
        has_prompt_weights=False,
        caption_tokens=500,  # of 512, as the chat template has some; Qwen3 needs about as many
        gpu_precision=RenderPrecision.BF16,
    )


def _training(label: str) -> dict[str, Limit]:
    """The limits of a training's settings, in sentences about the family of this label."""
    frozen_text = Limit(reason=f"The text encoder of {label} is not trained: leave this out.")
    levels = Limit(reason=f"{label} weights all levels equally: leave this out.", values=("none",))
    pure_noise = Limit(
        reason=f"{label} already learns from pure noise and needs no other noise: leave this out."
    )
    return {
        "kind": Limit(reason=f"{label} is trained with LoRA only: choose LoRA."),
        "targets": Limit(
            reason=f"{label} has no convolutions: choose attention or linear.",
            values=("attention", "linear"),
            is_shown=True,
        ),
        "blocks": Limit(reason=f"{label} is trained in all layers: leave target blocks at all."),
        "train_text_encoder": frozen_text,
        "text_encoder_rank": frozen_text,
        "text_encoder_alpha": frozen_text,
        "text_encoder_steps": frozen_text,
        "text_encoder_learning_rate": frozen_text,
        "clip_skip": Limit(reason=f"{label} has no CLIP text encoder: leave CLIP skip at 1."),
        "prediction_type": Limit(
            reason=f"{label} always predicts the flow from image to noise: leave this empty."
        ),
        "loss_weighting": levels,
        "snr_gamma": levels,
        "noise_offset": pure_noise,
        "multires_noise_discount": pure_noise,
        "zero_terminal_snr": pure_noise,
        "noise_focus": Limit(
            reason=f"Which noise levels {label} is trained at is set by flow shift and level "
            "density: leave this out."
        ),
        "shuffle_tags": Limit(
            reason=f"Captions are encoded once before {label} is trained, so tags cannot be "
            "shuffled: leave this off."
        ),
        "keep_tags": Limit(reason=f"Tags are not shuffled for {label}: leave this out."),
        "precision": Limit(
            reason=f"{label} needs bf16 or fp32; in fp16 its numbers overflow.",
            values=("bf16", "fp32"),
            is_shown=True,
        ),
    }
