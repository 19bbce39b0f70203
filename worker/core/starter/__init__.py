"""The embedded base model and its example style: where they lie, and what to draw with them.

Nothing here loads a model. `starter` is a diffusers folder like any other base; only this room
knows how it was made (`worker.core.starter.build`) and how its example was drawn
(`worker.core.starter.chalkboard`).
"""

from pathlib import Path

PATH: Path = Path(__file__).parent / "weights"
"""The diffusers folder of the base: 64 x 64 px, v-prediction, fp16."""

EXAMPLE: Path = Path(__file__).parent / "example"
"""The example style: captioned pictures of 512 px and a `metadata.jsonl`."""

EXAMPLE_TRIGGER: str = "chalkboard"
"""The word that calls the example style in a prompt."""

EXAMPLE_PROMPTS: tuple[str, ...] = (
    "castle, chalkboard style",
    "rocket, chalkboard style",
    "red apple, chalkboard style",
    "house, chalkboard style",
    "frog, chalkboard style",
)
"""Prompts that name subjects the base draws well and the example never shows."""
