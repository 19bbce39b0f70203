"""The sizes of a run's samples."""

from __future__ import annotations

from app.registry.base_models.sizes import USUAL_SIDE, size_problem
from app.registry.tables.base_models import BaseModel
from worker.core.training.config import TrainConfig
from worker.core.training.prompts import parse_prompt


def sample_size_problems(config: TrainConfig, base: BaseModel) -> dict[str, str]:
    """A reason, by field, if a sample prompt names a size that is too large for the base."""
    side = config.resolution or base.resolution or USUAL_SIDE
    for line in config.sample_prompts:
        prompt = parse_prompt(line)
        if prompt.width is None and prompt.height is None:
            continue
        if reason := size_problem(base, prompt.width or side, prompt.height or side):
            return {"sample_prompts": f"“{prompt.text}”: {reason}"}
    return {}
