"""A caption model in a process of its own, which leaves the GPU to trainings.

The process is ended to leave the GPU, to cancel, and at the end: so all its memory is free at once,
in the middle of a caption too. A model that crashes takes nothing else with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from worker.core.captioning.interface import CaptionAnswer, ImageNotCaptioned, ProviderGone
from worker.core.captioning.local.messages import (
    Caption,
    Failed,
    Message,
    Open,
    Opened,
    decode,
    encode,
)
from worker.core.eyes.images import as_rgb
from worker.runtime.device import child_environment
from worker.runtime.line_process import Ended, LineProcess

COMMAND = (sys.executable, "-P", "-m", "worker.core.captioning.local")
LOOK_SECONDS = 0.25  # between two looks at whether to stop or to leave the GPU
CPU = "cpu"
CRASHED = (
    "“{title}” ended with exit code {code}, as when the memory runs out. Close other programs or "
    "choose a smaller model, then continue. The log of the io worker may say more."
)


@dataclass(frozen=True)
class LocalModel:
    """The model to open: its folder, its name in messages, and where it computes.

    `device` is the setting; `threads` those of a CPU.
    """

    folder: Path
    title: str
    device: str
    threads: int


class LocalCaptioner:
    """A Captioner whose model is opened in a process."""

    def __init__(
        self,
        model: LocalModel,
        scratch: Path,
        *,
        check: Callable[[], None],
        needs_gpu: Callable[[], bool],
        command: Sequence[str] | None = None,
    ) -> None:
        """`check` is called several times a second and ends the work by raising; `needs_gpu` says
        whether a training runs or waits."""
        self.title = model.title
        self._model = model
        self._image = scratch / "to-caption.png"
        self._check = check
        self._needs_gpu = needs_gpu
        self._command = command or COMMAND
        self._process: LineProcess[Message] | None = None

    def open(self) -> None:
        """Start the process and open the model. Raises ProviderGone and what `check` raises."""
        try:
            self._be_open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def caption(self, image: Image.Image, prompt: str) -> CaptionAnswer:
        as_rgb(image).save(self._image, "PNG", compress_level=1)
        while True:
            self._be_open()
            answer = self._ask(Caption(str(self._image), prompt))
            if answer is None:
                continue  # a training needs the GPU: on the CPU, then
            assert isinstance(answer, CaptionAnswer)
            return answer

    def _be_open(self) -> None:
        """Have the model open where it may be now."""
        while not self._is_well_placed():
            self.close()
            on_cpu = self._model.device != CPU and self._needs_gpu()
            environment = child_environment(self._model.threads)
            self._process = LineProcess(self._command, environment, decode)
            asked = Open(str(self._model.folder), self.title, self._model.device, on_cpu)
            self._is_on_gpu = not on_cpu and self._model.device != CPU  # until it says more
            self._may_move = False
            opened = self._ask(asked)
            if opened is None:
                continue
            assert isinstance(opened, Opened)
            self._is_on_gpu = opened.device != CPU
            self._may_move = on_cpu and opened.wanted != CPU

    def _is_well_placed(self) -> bool:
        """False while it is not open, and when the GPU that it had to leave is free."""
        return self._process is not None and not (self._may_move and not self._needs_gpu())

    def _ask(self, message: Message) -> Message | None:
        """The answer; None if the process was ended because a training needs the GPU.

        Raises ProviderGone, ImageNotCaptioned and what `check` raises.
        """
        assert self._process is not None
        self._process.write(encode(message))
        while True:
            self._check()
            if self._is_on_gpu and self._needs_gpu():
                self.close()
                return None
            answer = self._process.receive(LOOK_SECONDS)
            if isinstance(answer, Ended):
                self.close()
                raise ProviderGone(CRASHED.format(title=self.title, code=answer.code))
            if isinstance(answer, Failed):
                raise (ProviderGone if answer.is_gone else ImageNotCaptioned)(answer.sentence)
            if answer is not None:
                return answer
