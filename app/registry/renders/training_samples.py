"""Training samples of a version as images of the playground: with all of their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from app.registry.adapters import service as adapters
from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.runs import Sample
from worker.core.training.prompts import PromptError, SamplePrompt, parse_prompt


@dataclass(frozen=True)
class TrainingSample:
    """A sample with its prompt, whose options are apart, and the settings of its training.

    `config` may lack settings, of adapters that were trained elsewhere.
    """

    row: Sample
    prompt: SamplePrompt
    config: dict[str, Any]

    def is_of(self, prompt: str) -> bool:
        """True for this prompt, with or without the options of the line."""
        return prompt in (self.row.prompt, self.prompt.text)

    @property
    def negative(self) -> str:
        """Its negative prompt."""
        own = self.prompt.negative
        return str(self.config.get("sample_negative_prompt", "")).strip() if own is None else own

    @property
    def steps(self) -> int | None:
        """The denoising steps; None if they are not known."""
        return self.prompt.steps or self.config.get("sample_steps")

    @property
    def guidance(self) -> float | None:
        """The CFG scale; None if it is not known."""
        own = self.prompt.guidance
        return self.config.get("sample_guidance") if own is None else own

    @property
    def size(self) -> tuple[int | None, int | None]:
        """Width and height in pixels; None: the native side of the base model."""
        side = self.config.get("resolution")
        return self.prompt.width or side, self.prompt.height or side


def find_training_sample(
    session: Session, version: AdapterVersion, prompt: str
) -> TrainingSample | None:
    """The sample of a version for a prompt, else its first one; None if it has no samples."""
    found = [
        TrainingSample(row, _parse(row.prompt), version.config)
        for row in adapters.version_samples(session, version)
    ]
    return next((one for one in found if one.is_of(prompt)), next(iter(found), None))


def _parse(line: str) -> SamplePrompt:
    try:
        return parse_prompt(line)
    except PromptError:
        return SamplePrompt(line)
