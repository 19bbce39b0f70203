"""A process that captions as the real one does, without a model: its captions name the device.

Asked for the GPU, it says that it is there. Its argument is how many seconds a caption takes. The
prompt “wait” is never answered on it, “crash” ends it, and “fail” is answered with a failure.
"""

from __future__ import annotations

import sys
import time

from worker.core.captioning.interface import CaptionAnswer
from worker.core.captioning.local.messages import (
    Caption,
    Failed,
    Message,
    Open,
    Opened,
    decode,
    encode,
)
from worker.core.child_pipes import Outbox


def main() -> None:
    outbox = Outbox(encode)
    device, seconds = "", float(sys.argv[1]) if sys.argv[1:] else 0.0
    for line in sys.stdin.buffer:
        message = decode(line)
        if isinstance(message, Open):
            device = "cpu" if message.on_cpu else message.device
            answer: Message = Opened(device, message.device)
        else:
            assert isinstance(message, Caption)
            if message.prompt == "crash":
                sys.exit(9)
            if message.prompt == "wait" and device != "cpu":
                time.sleep(600)
            time.sleep(seconds)
            answer = CaptionAnswer(f"on {device}")
            if message.prompt == "fail":
                answer = Failed("It had nothing to say.", is_gone=False)
        print("a line that a library wrote")
        outbox.send(answer)


if __name__ == "__main__":
    main()
