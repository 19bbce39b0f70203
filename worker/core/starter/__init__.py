"""The embedded base model and its example style: their paths and prompts to try.

Importing this module loads no model. `starter` is a diffusers folder like any other base;
`worker.core.starter.build` made it, and `worker.core.starter.chalkboard` drew its example.
"""

from pathlib import Path

PATH: Path = Path(__file__).parent / "weights"
"""The diffusers folder of the base: 64 x 64 px, v-prediction, fp16."""

EXAMPLE: Path = Path(__file__).parent / "example"
"""The example style: captioned images of 512 px and a `metadata.jsonl`."""

EXAMPLE_TRIGGER: str = "chalkboard"
"""The trigger word of the example style."""

EXAMPLE_PROMPTS: tuple[str, ...] = (
    "castle, chalkboard style",
    "rocket, chalkboard style",
    "red apple, chalkboard style",
    "house, chalkboard style",
    "frog, chalkboard style",
)
"""Prompts whose subjects the base knows well and the example does not contain."""
