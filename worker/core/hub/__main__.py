"""`python -m worker.core.hub`: carries out the order on its standard input, answers on its output.

It ends when its input is closed: the worker that started it is gone, and another one may go on. The
line `cancel` makes it undo what it has begun, then end; what is done already stays.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from io import RawIOBase
from pathlib import Path
from typing import Any

from worker.core.hub import adapters, models
from worker.core.hub.card import CardFacts
from worker.core.hub.errors import Access, explained
from worker.core.hub.orders import CANCEL, DONE, FAILED, LEFT, PROGRESS, Answer, Order
from worker.core.hub.undoing import Undoing

Values = dict[str, Any]
NOT_UNDONE = (
    "Nothing was published, but the empty repository that was made for it could not be deleted. "
    "{reason}"
)
undoing = Undoing()


def main() -> int:
    """Carry out the order; 0 when it was done."""
    # not by sys.stdin: it would read ahead, and its lock be held at the interpreter's end
    lines = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  # for as long as we live
    order = Order.read(lines.readline().decode())
    access = Access(order.endpoint, order.token)
    threading.Thread(target=_end_with_input, args=(lines, order, access), daemon=True).start()
    try:
        _say(DONE, WORK[order.what](order.values, access))
    except Exception as error:
        found = explained(error, str(order.values.get("repo", "")), access)
        if found is None:
            raise
        _say(FAILED, {"code": found.code, "error": str(found)})
        return 1
    return 0


def _end_with_input(lines: RawIOBase, order: Order, access: Access) -> None:
    while line := lines.readline():
        if line.decode().strip() == CANCEL and _cancel(order, access):
            break
    os._exit(3)


def _cancel(order: Order, access: Access) -> bool:
    """Undo what was begun; False when all is done, and only remains to be told."""
    try:
        return undoing.cancel()
    except Exception as error:
        reason = explained(error, str(order.values.get("repo", "")), access) or error
        _say(FAILED, {"code": LEFT, "error": NOT_UNDONE.format(reason=reason)})
        return True


def _say(kind: str, values: Values) -> None:
    sys.stdout.write(Answer(kind, values).line())
    sys.stdout.flush()


def _tell(file: str, done: int, total: int) -> None:
    """Say how far it is; the client hands over some megabytes at a time, so not too often."""
    _say(PROGRESS, {"file": file, "bytes_done": done, "bytes_total": total})


def _wanted(values: Values) -> models.Wanted:
    return models.Wanted(values["repo"], values["revision"], values["file"])


def _download_base(values: Values, access: Access) -> Values:
    found = models.download(
        _wanted(values),
        Path(values["folder"]),
        access,
        precision=values["precision"],
        tell=_tell,
    )
    return {"path": str(found.path), "commit": found.commit}


def _fetch_adapter(values: Values, access: Access) -> Values:
    return adapters.fetch_adapter(_wanted(values), Path(values["folder"]), access, tell=_tell)


def _publish_adapter(values: Values, access: Access) -> Values:
    return adapters.publish(
        values["repo"],
        {path: Path(source) for path, source in values["files"].items()},
        CardFacts(**values["facts"]),
        access,
        private=values["private"],
        update=values["update"],
        undoing=undoing,
    )


WORK: dict[str, Callable[[Values, Access], Values]] = {
    "download_base": _download_base,
    "fetch_adapter": _fetch_adapter,
    "publish_adapter": _publish_adapter,
}

if __name__ == "__main__":
    sys.exit(main())
