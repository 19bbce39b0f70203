"""`python -m worker.core.captioning.local`: opens a model and captions one image after another.

It reads messages from stdin and writes answers to stdout, and ends as soon as stdin is closed: then
its parent is gone. What a model takes of a GPU is free once the process has ended.
"""

from __future__ import annotations

import os
import sys
import threading
from io import RawIOBase
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from PIL import Image

from worker.core.captioning.interface import CaptionerHere, CaptionError, ImageNotCaptioned
from worker.core.captioning.local.messages import (
    Caption,
    Captioned,
    Failed,
    Message,
    Open,
    Opened,
    decode,
    encode,
)
from worker.core.captioning.local.opening import open_local
from worker.core.device import choose_device

ORPHANED = 75
CPU = "cpu"
MessageT = TypeVar("MessageT", Open, Caption)


def main() -> None:
    """Serve one parent until it closes the pipe."""
    # not sys.stdin: it reads ahead, and its lock would be held at interpreter exit
    lines = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  # for as long as we live
    inbox: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(lines, inbox), daemon=True).start()
    try:
        model = _open(_next(inbox, Open))
    except CaptionError as error:
        _tell(Failed(str(error), is_gone=True))
        return
    while True:
        _tell(_answer(model, _next(inbox, Caption)))


def _open(asked: Open) -> CaptionerHere:
    wanted = choose_device(asked.device)
    used = CPU if asked.on_cpu else wanted
    model = open_local(Path(asked.folder), title=asked.title, device=used)
    _tell(Opened(model.device, wanted))
    return model


def _answer(model: CaptionerHere, asked: Caption) -> Captioned | Failed:
    try:
        with Image.open(asked.path) as image:
            answer = model.caption(image, asked.prompt)
    except CaptionError as error:
        return Failed(str(error), is_gone=not isinstance(error, ImageNotCaptioned))
    return Captioned(answer.text, answer.note)


def _next(inbox: SimpleQueue[str], kind: type[MessageT]) -> MessageT:
    message = decode(inbox.get())
    assert isinstance(message, kind)
    return message


def _read(lines: RawIOBase, inbox: SimpleQueue[str]) -> None:
    while line := lines.readline():
        inbox.put(line.decode())
    os._exit(ORPHANED)  # the model may be at work


def _tell(message: Message) -> None:
    sys.stdout.write(encode(message))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
