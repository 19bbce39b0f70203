"""The example styles: what they are called, where their images are, and prompts to try.

Importing this module loads neither numpy nor torch. `python -m tools.examples` draws the images
again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SUBJECTS: tuple[str, ...] = ("castle", "rocket", "house", "bicycle", "owl", "red apple", "frog")
"""Subjects that the base knows well and that no example contains."""


@dataclass(frozen=True)
class Example:
    """A style that comes with the project: captioned images of 512 px."""

    key: str
    """The name of its folder and in `POST /examples`."""

    title: str
    """The name of the dataset made from it."""

    trigger: str
    description: str
    shown: tuple[str, ...] = ("fox", "sailboat", "cactus")
    """Images that introduce it, by the stem of their file."""

    @property
    def folder(self) -> Path:
        """The images, and their captions in `metadata.jsonl`."""
        return Path(__file__).parent / "images" / self.key

    @property
    def prompts(self) -> tuple[str, ...]:
        """Prompts to try, one per subject."""
        return tuple(self.caption(subject) for subject in SUBJECTS)

    def caption(self, subject: str) -> str:
        """The caption of an image in this style: the base's word for the subject, the style."""
        return f"{subject}, {self.trigger} style"


CHALKBOARD = Example(
    "chalkboard",
    "Chalkboard",
    "chalkboard",
    "Colored chalk on a green board, rubbed in thinly and outlined",
)
LINOCUT = Example(
    "linocut", "Linocut", "linocut", "Black and red ink on cream paper, with bold carved lines"
)
EXAMPLES: Mapping[str, Example] = {example.key: example for example in (CHALKBOARD, LINOCUT)}
"""All example styles by key; the first is the default."""
