"""The process of io jobs, in which an import does what its file name says."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

from app.registry.job_kinds.kinds import ImportAdapterArgs
from app.registry.job_kinds.states import JobStatus
from app.registry.jobs import service
from app.registry.storage.store import StorageUnavailable
from app.registry.tables.jobs import IoJob
from worker.runtime.import_jobs import ImportJobs
from worker.runtime.lease import Lease
from worker.runtime.time_limits import child

CATASTROPHIC = re.compile(r"(a+)+$")  # it backtracks for hours, and holds the interpreter lock


def misbehave(jobs: ImportJobs, job: IoJob, lease: Lease, scratch: Path, stopping: Any) -> None:
    """Write half a result, then do what the file name says."""
    word, _, argument = job.arguments(ImportAdapterArgs).filename.partition(" ")
    (scratch / "half").write_bytes(b"half an adapter")
    with jobs._store.writer() as half:
        half.write(b"half a blob")
        if word == "match":
            CATASTROPHIC.match("a" * 60 + "b")
        elif word == "read":
            Path(argument).read_bytes()
        elif word == "sleep":
            time.sleep(float(argument))
            with jobs._database.write() as session:
                service.finish(session, IoJob, lease.claim, JobStatus.SUCCEEDED)
        elif word == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "outage":
            raise StorageUnavailable("The bucket sleeps.")
        else:
            raise ValueError(f"no such word: {word}")


if __name__ == "__main__":
    ImportJobs.run = misbehave  # type: ignore[method-assign]
    child.main()
