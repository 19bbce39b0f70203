"""The process of io jobs, in which an import does what its file name says."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from app.registry.job_kinds.kinds import ImportAdapterArgs
from app.registry.job_kinds.states import JobStatus
from app.registry.storage.store import StorageUnavailable
from worker.runtime import import_jobs
from worker.runtime.job_progress import IoWork
from worker.runtime.time_limits import child

CATASTROPHIC = re.compile(r"(a+)+$")  # it backtracks for hours, and holds the interpreter lock


def misbehave(work: IoWork) -> None:
    """Write half a result, then do what the file name says."""
    word, _, argument = work.job.arguments(ImportAdapterArgs).filename.partition(" ")
    (work.scratch / "half").write_bytes(b"half an adapter")
    with work.store.writer() as half:
        half.write(b"half a blob")
        if word == "match":
            CATASTROPHIC.match("a" * 60 + "b")
        elif word == "read":
            Path(argument).read_bytes()
        elif word == "sleep":
            time.sleep(float(argument))
            work.finish(JobStatus.SUCCEEDED)
        elif word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "outage":
            raise StorageUnavailable("The bucket sleeps.")
        else:
            raise ValueError(f"no such word: {word}")


if __name__ == "__main__":
    import_jobs.run = misbehave
    child.main()
