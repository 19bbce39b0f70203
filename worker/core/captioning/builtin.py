"""Names of single subjects by the embedded eyes: no download, and no name they are not sure of."""

from __future__ import annotations

from PIL import Image

from worker.core.captioning.interface import CaptionAnswer, ImageNotCaptioned
from worker.core.captioning.words import ProviderKind
from worker.core.eyes import EyesError, name_images, open_eyes
from worker.core.eyes.interface import Eyes

SURE_FROM = 0.90
"""The least confidence of a name that is given.

Of the drawings in four styles whose outlines the eyes never saw (OpenMoji, Streamline, Lucide,
Tabler; 1,943 drawings), 443 reach it and 92.6 % of their names are right; at 0.85 it is 91.0 % of
554, too close to nine in ten to be sure of. `worker/core/eyes/README.md` has the table by style.
"""

UNSURE = (
    "Not sure enough of a subject: the likeliest is “{name}” at {confidence:.0%}, and a name is "
    "given from {limit:.0%} on."
)


class BuiltinCaptioner:
    """The embedded eyes as a provider; they follow no instructions."""

    title = ProviderKind.BUILTIN.label

    def __init__(self, eyes: Eyes | None = None) -> None:
        self._eyes = eyes or open_eyes(device="cpu")  # a few milliseconds an image

    def caption(self, image: Image.Image, prompt: str = "") -> CaptionAnswer:
        try:
            ((guess,),) = name_images(self._eyes, [image], top=1)
        except EyesError as error:
            raise ImageNotCaptioned(str(error)) from error
        if guess.confidence < SURE_FROM:
            note = UNSURE.format(name=guess.name, confidence=guess.confidence, limit=SURE_FROM)
            return CaptionAnswer("", note, guess.name, guess.confidence)
        return CaptionAnswer(guess.name)
