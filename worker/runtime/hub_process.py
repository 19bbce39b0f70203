"""The process that talks to the Hub: one per order, stopped on shutdown, cancel or a lost lease.

Workers themselves are offline (HF_HUB_OFFLINE=1), so that no library downloads anything implicitly.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from app.registry.job_kinds.kinds import ByteProgress
from worker.core.hub.messages import CANCEL, DONE, FAILED, LEFT, HubReply, HubRequest
from worker.runtime.device import child_environment
from worker.runtime.job_progress import IoWork, JobCanceled, RefusedError
from worker.runtime.line_process import Ended, LineProcess

COMMAND = (sys.executable, "-P", "-m", "worker.core.hub")
WRITE_SECONDS = 0.5  # between two writes of the progress
LOOK_SECONDS = 0.25  # between two looks at whether to stop
UNDO_SECONDS = 20.0  # for the Hub to finish a commit, or to delete a new repository
ENDED = "The Hub process ended with exit code {code}. See the worker's log."
UNSURE = "The Hub did not answer in time. Check on huggingface.co whether files are left there."
OFF = "Hugging Face access is off on this worker. An administrator can enable it: BRUSHWORK_HUB=on."


def run_order(work: IoWork, what: str, **values: Any) -> HubReply:
    """Run an order; return the final answer of the Hub process. Its progress is written to the job.

    Raises RefusedError, WorkerStopping and LostLease; JobCanceled with what could not be undone.
    """
    settings = work.settings
    if settings.hub == "off":
        raise RefusedError("hub_off", OFF)
    token = settings.hub_token.get_secret_value() if settings.hub_token else None
    order = HubRequest(what, settings.hub_endpoint.rstrip("/"), token, values)
    watch, progress, written_at = work.watch(), None, 0.0
    environment = _process_environment(order.endpoint)
    with LineProcess(COMMAND, environment, HubReply.read) as process:
        process.write(order.line().encode())
        while True:
            answer = process.receive(LOOK_SECONDS)
            if isinstance(answer, Ended):
                raise RuntimeError(ENDED.format(code=answer.code))
            if answer is not None and answer.kind == DONE:
                return answer
            if answer is not None and answer.kind == FAILED:
                raise RefusedError(answer.values["code"], answer.values["error"])
            progress = answer.values if answer is not None else progress
            try:
                watch()
            except JobCanceled:
                return _cancel(process)
            if progress is not None and time.monotonic() - written_at > WRITE_SECONDS:
                work.note(ByteProgress(**progress))
                progress, written_at = None, time.monotonic()


def _cancel(process: LineProcess[HubReply]) -> HubReply:
    """Cancel the order and raise JobCanceled; return the answer if it is too late."""
    process.write(f"{CANCEL}\n".encode())
    end = time.monotonic() + UNDO_SECONDS
    left = ""
    while not isinstance(answer := process.receive(end - time.monotonic()), Ended):
        if answer is None:
            left = UNSURE
            break
        if answer.kind == DONE:
            return answer
        if answer.kind == FAILED and answer.values["code"] == LEFT:
            left = answer.values["error"]
    raise JobCanceled(**({"error": left, "error_code": LEFT} if left else {}))


def _process_environment(endpoint: str) -> dict[str, str]:
    return child_environment(1) | {
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # plain HTTP can be resumed within a file, and stopped
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        "HF_ENDPOINT": endpoint,  # the token may be sent to this host
    }
