"""`python -m worker.core.captioning.local`: opens a model and captions one image after another.

It reads messages from stdin and writes answers to stdout, and ends as soon as stdin is closed: then
its parent is gone. What a model takes of a GPU is free once the process has ended. Torch is loaded
only for a model that needs it.
"""

from __future__ import annotations

from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from PIL import Image

from worker.core.captioning.interface import (
    CaptionAnswer,
    CaptionerHere,
    CaptionError,
    ImageNotCaptioned,
)
from worker.core.captioning.local.inspect import inspect_caption_model
from worker.core.captioning.local.messages import (
    Caption,
    Failed,
    Message,
    Open,
    Opened,
    decode,
    encode,
)
from worker.core.captioning.words import CaptionFamily
from worker.core.child_pipes import Outbox, read_lines
from worker.core.device import choose_device
from worker.core.lean_imports import lean_imports

CPU = "cpu"
MessageT = TypeVar("MessageT", Open, Caption)


def main() -> None:
    """Serve one parent until it closes the pipe."""
    outbox = Outbox(encode)
    inbox: SimpleQueue[bytes] = SimpleQueue()
    read_lines(inbox.put)
    try:
        model = _open(_next(inbox, Open), outbox)
    except CaptionError as error:
        outbox.send(Failed(str(error), is_gone=True))
        return
    while True:
        outbox.send(_answer(model, _next(inbox, Caption)))


def _open(asked: Open, outbox: Outbox[Message]) -> CaptionerHere:
    wanted = choose_device(asked.device)
    used = CPU if asked.on_cpu else wanted
    model = open_local(Path(asked.folder), title=asked.title, device=used)
    outbox.send(Opened(model.device, wanted))
    return model


def open_local(folder: Path, *, title: str, device: str) -> CaptionerHere:
    """The model in a folder. Raises UnusableModel, and ProviderGone without enough memory."""
    family = inspect_caption_model(folder).family
    if family is CaptionFamily.WD_TAGGER:
        from worker.core.captioning.local.wd_tagger import load_wd_tagger

        return load_wd_tagger(folder, title=title, device=device)
    with lean_imports(device):
        from worker.core.captioning.local.vision_language import load_vision_language
    return load_vision_language(folder, family, title=title, device=device)


def _answer(model: CaptionerHere, asked: Caption) -> CaptionAnswer | Failed:
    try:
        with Image.open(asked.path) as image:
            return model.caption(image, asked.prompt)
    except CaptionError as error:
        return Failed(str(error), is_gone=not isinstance(error, ImageNotCaptioned))


def _next(inbox: SimpleQueue[bytes], kind: type[MessageT]) -> MessageT:
    message = decode(inbox.get())
    assert isinstance(message, kind)
    return message


if __name__ == "__main__":
    main()
