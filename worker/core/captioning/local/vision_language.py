"""BLIP and Florence-2 by transformers. Importing this module loads torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    BlipForConditionalGeneration,
    Florence2ForConditionalGeneration,
)
from transformers.utils import logging as transformers_logging

from worker.core.captioning.answers import caption_of_answer
from worker.core.captioning.interface import CaptionAnswer, ImageNotCaptioned, ProviderGone
from worker.core.captioning.local.inspect import UnusableModel
from worker.core.captioning.words import CaptionFamily
from worker.core.eyes.images import as_rgb

MAX_TOKENS = 120
BEAMS = 3
FLORENCE_TASK = "<DETAILED_CAPTION>"
"""A sentence or two; Florence-2 knows tasks and follows no other prompt."""

OUT_OF_MEMORY = (
    "“{title}” does not fit into the memory of the GPU beside what is there. Wait until images are "
    "generated, choose a smaller model, or start the io worker with BRUSHWORK_DEVICE=cpu."
)


class VisionLanguageCaptioner:
    """A model that writes a sentence; it follows no prompt."""

    def __init__(
        self, title: str, model: Any, processor: Any, *, task: str | None, device: str
    ) -> None:
        self.title = title
        self.device = device
        self._model = model
        self._processor = processor
        self._task = task

    @torch.no_grad()
    def caption(self, image: Image.Image, prompt: str) -> CaptionAnswer:
        try:
            asked = {} if self._task is None else {"text": self._task}
            inputs = self._processor(images=as_rgb(image), return_tensors="pt", **asked)
            inputs = inputs.to(self.device, self._model.dtype)
            written = self._model.generate(
                **inputs, max_new_tokens=MAX_TOKENS, num_beams=BEAMS, do_sample=False
            )
        except torch.OutOfMemoryError as error:
            raise ProviderGone(OUT_OF_MEMORY.format(title=self.title)) from error
        (answer,) = self._processor.batch_decode(written, skip_special_tokens=True)
        text = caption_of_answer(answer, is_cut_off=written.shape[-1] >= MAX_TOKENS)
        if not text:
            raise ImageNotCaptioned(f"“{self.title}” had nothing to say of this image.")
        return CaptionAnswer(text)


def load_vision_language(
    folder: Path, family: CaptionFamily, *, title: str, device: str
) -> VisionLanguageCaptioner:
    """The model in a folder. Raises UnusableModel and ProviderGone; runs no code of the folder."""
    is_florence = family is CaptionFamily.FLORENCE2
    kind: Any = Florence2ForConditionalGeneration if is_florence else BlipForConditionalGeneration
    dtype = torch.float32 if device == "cpu" else torch.float16
    transformers_logging.disable_progress_bar()  # this process has nobody to show it to
    try:
        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
        model = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=dtype
        )
        model = model.to(device).eval()
    except torch.OutOfMemoryError as error:
        raise ProviderGone(OUT_OF_MEMORY.format(title=title)) from error
    except Exception as error:  # transformers raises a dozen kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnusableModel(f"“{title}” cannot be opened: {reason}") from error
    task = FLORENCE_TASK if is_florence else None
    return VisionLanguageCaptioner(title, model, processor, task=task, device=device)
