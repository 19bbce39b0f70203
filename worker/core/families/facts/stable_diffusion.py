"""Stable Diffusion 1.x, 2.x and SDXL."""

from __future__ import annotations

from dataclasses import replace

from worker.core.families.facts.family_facts import FamilyFacts, FamilyOptions, Limit
from worker.core.families.facts.latents import LinearMap

# B-LoRA, arXiv 2403.14572: these two SDXL attentions hold an image's style and content; BLOCKS in
# yardenfren1996/B-LoRA, blora_utils.py, has the same.
B_LORA = {"style": "up.0.1", "content": "up.0.0"}

_ATTENTION = r".*\.attentions\..*(to_q|to_k|to_v|to_out\.0)"
_LINEAR = r".*\.attentions\..*"
_CONVOLUTION = r".*\.(conv1|conv2|conv_shortcut|time_emb_proj|(down|up)samplers\.0\.conv)"
TARGETS = {"attention": _ATTENTION, "linear": _LINEAR, "all": f"{_LINEAR}|{_CONVOLUTION}"}
# keturn, "Decoding latents to RGB without upscaling", discuss.huggingface.co, topic 23204; SD 2.x
# shares the latents of SD 1.x
_LATENTS = LinearMap(
    (
        (0.298, 0.207, 0.208),
        (0.187, 0.286, 0.173),
        (-0.158, 0.189, 0.264),
        (-0.184, -0.271, -0.473),
    )
)
# T. A. Vass, "Explaining the SDXL latent space", Hugging Face blog
_LATENTS_XL = LinearMap(
    ((60, 60, 60), (-60, -5, 10), (25, 15, -5), (-70, -50, -35)), (150, 140, 130), has_levels=True
)
_ONLY_TRANSFORMERS = Limit(
    reason="Only base models with a transformer, such as Z-Image, have this setting: leave it out."
)
_TRAINING = dict.fromkeys(("flow_shift", "level_density", "base_weights"), _ONLY_TRANSFORMERS)
SD1 = FamilyFacts(
    label="Stable Diffusion 1.x",
    short_label="SD 1.x",
    native_side=512,
    text_width=768,
    denoiser_parameters=859_520_964,
    latent_scale=0.18215,
    kohya_version="sd_1.5",
    architecture="stable-diffusion-v1",
    architecture_v="stable-diffusion-v1",
    sidecar_version="SD1",
    hub_tag="stable-diffusion",
    linear_map=_LATENTS,
    options=FamilyOptions(training=_TRAINING, targets=TARGETS),
)
SD2 = replace(
    SD1,
    label="Stable Diffusion 2.x",
    short_label="SD 2.x",
    native_side=768,
    text_width=1024,
    denoiser_parameters=865_910_724,
    kohya_version="sd_v2",
    architecture="stable-diffusion-v2-512",
    architecture_v="stable-diffusion-v2-768-v",
    sidecar_version="SD2",
)
SDXL = FamilyFacts(
    label="SDXL",
    short_label="SDXL",
    native_side=1024,
    text_width=2048,
    denoiser_parameters=2_567_463_684,
    latent_scale=0.13025,
    kohya_version="sdxl_base_v1-0",
    architecture="stable-diffusion-xl-v1-base",
    architecture_v="stable-diffusion-xl-v1-base",
    sidecar_version="SDXL",
    hub_tag="stable-diffusion-xl",
    linear_map=_LATENTS_XL,
    options=FamilyOptions(
        targets=TARGETS,
        training=_TRAINING
        | {
            "clip_skip": Limit(
                reason="SDXL always uses the second-last layer of its text encoders. Set CLIP skip "
                "to 1.",
                is_shown=True,
            )
        },
        drawing={
            "clip_skip": Limit(
                reason="SDXL always reads the second-to-last layer of its text encoders: leave "
                "CLIP skip empty.",
                is_shown=True,
            )
        },
        named_blocks=B_LORA,
    ),
)
