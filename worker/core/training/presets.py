"""Three ready-made configs for people who do not want to tune settings."""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from worker.core.families.facts.family_facts import Recipe
from worker.core.families.family import BaseFamily, usual_drawing
from worker.core.training.config import LrScheduler, Optimizer, Targets, TrainConfig
from worker.core.words import LossWeighting

SMALL_RESOLUTION = 128
LARGE_RESOLUTION = 768
MAX_STEPS = 20_000
HELD_OUT_SHARE = 0.15
FEWEST_HELD_OUT = 4  # fewer are no control for copying
FEWEST_IMAGES = 4 * FEWEST_HELD_OUT
SAMPLE_SUBJECTS = ("castle", "rocket", "red apple", "house", "frog")

PromptForm = tuple[str, str]
"""What stands before and after the subject of a prompt, such as ("", ", ink style")."""


class Preset(StrEnum):
    """Trade-off between training time and quality."""

    QUICK = "quick"
    BALANCED = "balanced"
    THOROUGH = "thorough"


_SMALL = {
    Preset.QUICK: Recipe(300, 8, 4, 2e-3, Targets.LINEAR),
    Preset.BALANCED: Recipe(1_200, 8, 4, 1.5e-3, Targets.LINEAR),
    Preset.THOROUGH: Recipe(2_500, 8, 8, 1e-3, Targets.LINEAR),
}
_MEDIUM = {
    Preset.QUICK: Recipe(500, 2, 8, 2e-4),
    Preset.BALANCED: Recipe(1_200, 2, 16, 1e-4),
    Preset.THOROUGH: Recipe(3_000, 4, 16, 1e-4, Targets.LINEAR),
}
_LARGE = {
    Preset.QUICK: Recipe(500, 1, 8, 2e-4),
    Preset.BALANCED: Recipe(1_500, 1, 16, 1e-4),
    Preset.THOROUGH: Recipe(3_000, 2, 32, 1e-4, Targets.LINEAR),
}
FEWEST_CHECKPOINTS = 10  # of a family with recipes of its own: people disagree on its steps


def preset_config(
    preset: Preset,
    *,
    resolution: int,
    images: int,
    family: BaseFamily | None = None,
    prompt_form: PromptForm = ("", ""),
    evaluate: bool = False,
) -> TrainConfig:
    """Return the config of a preset for a base model of this native `resolution` (pixels).

    `family`: None for a base that is still unknown.

    Learning rate and batch size depend on the native resolution, not on the name: a small base
    model takes ten times the learning rate of one of 512 pixels. A large dataset gets more steps,
    so that each image is still seen a few times.

    With `evaluate` the checkpoints are compared at the end, and images are held out for that.

    The text encoder is never trained: with few images it loses the subjects that none of them
    shows, long before the style is learned.
    """
    small, drawing = is_small_resolution(resolution), usual_drawing(family)
    recipes = _SMALL if small else _LARGE if resolution >= LARGE_RESOLUTION else _MEDIUM
    own = family.facts.recipes if family else {}
    recipe = own.get(preset, recipes[preset])
    steps = min(MAX_STEPS, max(recipe.steps, 5 * images // recipe.batch_size))
    every = _rounded(steps / (4 if preset is Preset.QUICK else 6))
    if own:
        every = 25 * (steps // (25 * FEWEST_CHECKPOINTS))
    return TrainConfig(
        steps=steps,
        batch_size=recipe.batch_size,
        rank=recipe.rank,
        alpha=float(recipe.rank),
        targets=Targets(recipe.targets),
        learning_rate=recipe.learning_rate,
        warmup_steps=min(steps // 20, 100),
        loss_weighting=LossWeighting.NONE if small or own else LossWeighting.MIN_SNR,
        gradient_checkpointing=resolution >= LARGE_RESOLUTION or bool(own),
        validation_share=hold_out_share(images) if evaluate else 0.0,
        checkpoint_every=every,
        evaluate=evaluate,
        sample_every=every,
        sample_prompts=prompts_of(SAMPLE_SUBJECTS, prompt_form),
        **({"sample_steps": drawing.steps} if drawing else {}),
        sample_guidance=default_guidance(resolution, family),
    )


def hold_out_share(images: int) -> float:
    """The share of the images that an evaluated run holds out; 0 where there are too few."""
    if images < FEWEST_IMAGES:
        return 0.0
    return max(HELD_OUT_SHARE, round(FEWEST_HELD_OUT / images, 3))


def is_small_resolution(resolution: int) -> bool:
    """True for a base model of this native resolution that trains in minutes on a CPU."""
    return resolution <= SMALL_RESOLUTION


def default_guidance(resolution: int, family: BaseFamily | None = None) -> float:
    """The guidance scale for a base model of this native resolution.

    Small base models draw what they are asked for without much guidance, which only adds contrast:
    an adapter of 300 steps on chalk drawings was at 0.9 of the style measure with 2, at 1.4 with
    3.5 (`tools/starter/README.md`).
    """
    if drawing := usual_drawing(family):
        return drawing.guidance
    return 2.0 if is_small_resolution(resolution) else 7.0


def for_optimizer(config: TrainConfig, optimizer: object) -> TrainConfig:
    """Return the config with the settings that this optimizer needs, where they differ from AdamW.

    Prodigy multiplies the learning rate it finds by the configured one; schedule-free AdamW needs
    no LR scheduler and no EMA. Any other value leaves the config unchanged.
    """
    if not isinstance(optimizer, str) or optimizer not in set(Optimizer):
        return config
    changes: dict[str, Any] = {"optimizer": Optimizer(str(optimizer))}
    if optimizer == Optimizer.PRODIGY:
        changes |= {
            "learning_rate": 1.0,
            "text_encoder_learning_rate": None,
            "lora_plus_ratio": None,
        }
    if optimizer == Optimizer.ADAMW_SCHEDULE_FREE:
        changes |= {"lr_scheduler": LrScheduler.CONSTANT, "ema_decay": None}
    return config.model_copy(update=changes)


def _rounded(steps: float) -> int:
    """The next multiple of 25, at least 50: steps between checkpoints, each with its samples."""
    return max(50, 25 * math.ceil(steps / 25))


def prompts_of(subjects: Sequence[str], form: PromptForm) -> list[str]:
    """Subjects with what stands before and after them."""
    before, after = form
    return [f"{before}{subject}{after}" for subject in subjects]


def usual_form(trigger_word: str | None) -> PromptForm:
    """The form of prompts with a trigger word, where captions do not show another one."""
    if not trigger_word:
        return "", ""
    return "", f", {trigger_word}" if trigger_word.endswith("style") else f", {trigger_word} style"


def form_of(prompts: Sequence[str]) -> PromptForm | None:
    """The form of which a preset made these prompts; None for others."""
    before, _, after = "".join(prompts[:1]).partition(SAMPLE_SUBJECTS[0])
    return (
        (before, after) if list(prompts) == prompts_of(SAMPLE_SUBJECTS, (before, after)) else None
    )
