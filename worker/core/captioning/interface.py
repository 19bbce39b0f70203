"""The interface of all providers of captions, wherever their model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from PIL import Image

DEFAULT_PROMPT = (
    "Describe what this image shows in one sentence of at most 30 words. Name the subject, what it "
    "does and its surroundings. Do not mention the style, the medium or the colors, and do not "
    "begin with “The image shows”."
)
MAX_PROMPT = 4_000  # characters


class CaptionError(Exception):
    """No caption was made; the message says why and what to do. `said`: the words of a server."""

    def __init__(self, sentence: str, said: str = "") -> None:
        super().__init__(sentence)
        self.said = said


class ImageNotCaptioned(CaptionError):
    """This image has no caption; the next one may get one."""


class ProviderGone(CaptionError):
    """No image can be captioned until somebody changes something."""


@dataclass(frozen=True)
class CaptionAnswer:
    """A provider's answer about an image.

    `text` is empty where the provider is not sure enough; `note` then says so in a sentence, and
    `guess` is what it would have named, with its confidence from 0 to 1.
    """

    text: str
    note: str = ""
    guess: str = ""
    confidence: float | None = None


class Captioner(Protocol):
    """A model that writes captions."""

    @property
    def title(self) -> str:
        """The name in messages and in the history of captions, such as “Ollama llava”."""

    def caption(self, image: Image.Image, prompt: str) -> CaptionAnswer:
        """The caption of an image of any size and mode. Raises CaptionError.

        Models that follow no instructions ignore the prompt.
        """


class CaptionerHere(Captioner, Protocol):
    """A model that writes captions on this machine, in this process."""

    @property
    def device(self) -> str:
        """The torch device that it computes on, such as `cuda` or `cpu`."""
