"""`python -m worker.core.hub`: reads a request from standard input, writes replies to standard
output.

The process exits when its input is closed: then its worker is gone, and another worker may retry.
The line `cancel` makes it undo what it has begun and exit; completed work stays.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from worker.core.hub import adapters, models
from worker.core.hub.adapters import CancelGuard
from worker.core.hub.errors import Access, explain_error
from worker.core.hub.messages import (
    CANCEL,
    DONE,
    FAILED,
    LEFT,
    PROGRESS,
    HubReply,
    HubRequest,
    ModelCard,
)

Values = dict[str, Any]
NOT_UNDONE = (
    "Nothing was published, but the new, empty repository could not be deleted. Delete it on the "
    "Hub. {reason}"
)
guard = CancelGuard()


def main() -> int:
    """Handle one request; 0 on success."""
    # not sys.stdin: it reads ahead, and its lock would be held at interpreter exit
    lines = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  # for as long as we live
    order = HubRequest.read(lines.readline().decode())
    access = Access(order.endpoint, order.token)
    threading.Thread(target=_end_with_input, args=(lines, order, access), daemon=True).start()
    try:
        _send_reply(DONE, HANDLERS[order.what](order.values, access))
    except Exception as error:
        found = explain_error(error, str(order.values.get("repo", "")), access)
        if found is None:
            raise
        _send_reply(FAILED, {"code": found.code, "error": str(found)})
        return 1
    return 0


def _end_with_input(lines: RawIOBase, order: HubRequest, access: Access) -> None:
    while line := lines.readline():
        if line.decode().strip() == CANCEL and _undo_order(order, access):
            break
    os._exit(3)


def _undo_order(order: HubRequest, access: Access) -> bool:
    """Undo what was begun; False when the work is complete and only the reply is missing."""
    try:
        return guard.cancel()
    except Exception as error:
        reason = explain_error(error, str(order.values.get("repo", "")), access) or error
        _send_reply(FAILED, {"code": LEFT, "error": NOT_UNDONE.format(reason=reason)})
        return True


def _send_reply(kind: str, values: Values) -> None:
    sys.stdout.write(HubReply(kind, values).line())
    sys.stdout.flush()


def _report_progress(file: str, done: int, total: int) -> None:
    """Report progress; the client calls this every few megabytes, so not too often."""
    _send_reply(PROGRESS, {"file": file, "bytes_done": done, "bytes_total": total})


def _read_reference(values: Values) -> models.HubReference:
    return models.HubReference(values["repo"], values["revision"], values.get("file"))


def _download_model(
    values: Values, access: Access, download: Callable[..., models.LocalModel], **options: Any
) -> Values:
    found = download(
        _read_reference(values),
        Path(values["folder"]),
        access,
        on_progress=_report_progress,
        **options,
    )
    return {"path": str(found.path), "commit": found.commit}


def _download_base(values: Values, access: Access) -> Values:
    precision = values["precision"]
    if not values.get("size_only"):
        return _download_model(values, access, models.download_model, precision=precision)
    reference, folder = _read_reference(values), Path(values["folder"])
    return {"size": models.download_size(reference, folder, access, precision=precision)}


def _fetch_adapter(values: Values, access: Access) -> Values:
    return adapters.fetch_adapter(
        _read_reference(values), Path(values["folder"]), access, on_progress=_report_progress
    )


def _publish_adapter(values: Values, access: Access) -> Values:
    return adapters.publish_adapter(
        values["repo"],
        {path: Path(source) for path, source in values["files"].items()},
        TypeAdapter(ModelCard).validate_python(values["card"]),
        access,
        private=values["private"],
        update=values["update"],
        guard=guard,
    )


HANDLERS: dict[str, Callable[[Values, Access], Values]] = {
    "download_base": _download_base,
    "download_caption_model": lambda values, access: _download_model(
        values, access, models.download_caption_model
    ),
    "fetch_adapter": _fetch_adapter,
    "publish_adapter": _publish_adapter,
}

if __name__ == "__main__":
    sys.exit(main())
