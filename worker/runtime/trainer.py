"""The trainer process: imports all libraries, loads a base model and waits for one training.

`python -m worker.runtime.trainer` reads messages from stdin and writes messages to the original
stdout; other output goes to stderr. It exits as soon as stdin is closed, so no training outlives
its worker.

The pipes are set up before the libraries are imported: what a library prints on import must not mix
with the messages, and a trainer whose worker dies meanwhile exits. So this module imports only what
the pipes need, and `main` imports `trainer_orders`, which imports the rest at its top.
"""

from __future__ import annotations

import os
import sys
import traceback

from worker.core.bases.family import BaseModelError
from worker.core.child_pipes import Outbox
from worker.core.device import choose_device
from worker.core.lean_imports import lean_imports
from worker.core.lora_files.errors import AdapterError
from worker.core.training.errors import TrainingError
from worker.runtime.messages import FailureReport, MessageInbox, encode


def failure(error: Exception) -> FailureReport:
    """The report of an exception, with a message for users if it is an expected one."""
    import torch  # trainer_orders has loaded it

    trace = "".join(traceback.format_exception(error))
    if isinstance(error, TrainingError):
        return FailureReport(error.code, str(error), trace, expected=True)
    if isinstance(error, BaseModelError):
        return FailureReport("base_model", str(error), trace, expected=True)
    if isinstance(error, AdapterError):
        return FailureReport("adapter", str(error), trace, expected=True)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return FailureReport("out_of_memory", "Out of memory.", trace, True)
    sentence = f"The training stopped with {type(error).__name__}: {error}"
    return FailureReport("trainer_error", sentence[:500], trace, expected=False)


def main() -> None:
    """Serve one worker, then exit the process."""
    outbox, inbox = Outbox(encode), MessageInbox()
    try:
        device = choose_device(os.environ.get("BRUSHWORK_DEVICE", "auto"))
        with lean_imports(device):
            from worker.runtime.trainer_orders import Trainer  # seconds: torch, diffusers, PEFT
        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        Trainer(outbox, inbox, device=device, threads=threads).work()
    except Exception as error:
        traceback.print_exc()
        outbox.send(failure(error))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # everything is on disk; a regular exit with torch takes a second


if __name__ == "__main__":
    main()
