"""Eyes: embeddings of images and texts in one space, to compare them and to name what images show.

`open_eyes()` gives the small embedded eyes, which need no download; `open_eyes(source)` those of a
CLIP or DINO model. Importing this package loads no torch.
"""

from worker.core.eyes.interface import Eyes, EyesError, Guess, NoTextSide, UnknownText
from worker.core.eyes.naming import name_images, similarity
from worker.core.eyes.opening import EMBEDDED, open_eyes

__all__ = [
    "EMBEDDED",
    "Eyes",
    "EyesError",
    "Guess",
    "NoTextSide",
    "UnknownText",
    "name_images",
    "open_eyes",
    "similarity",
]
