"""`python -m worker.hub`: carries out the order on its standard input, answers on its output.

It ends when its input is closed: the worker that started it is gone, and another one may go on.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker.hub import adapters, models
from worker.hub.card import CardFacts
from worker.hub.errors import Access, explained
from worker.hub.orders import DONE, FAILED, PROGRESS, Answer, Order

Values = dict[str, Any]


def main() -> int:
    """Carry out the order; 0 when it was done."""
    order = Order.read(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    access = Access(order.endpoint, order.token)
    try:
        _say(DONE, WORK[order.what](order.values, access))
    except Exception as error:
        found = explained(error, str(order.values.get("repo", "")), access)
        if found is None:
            raise
        _say(FAILED, {"code": found.code, "error": str(found)})
        return 1
    return 0


def _end_with_input() -> None:
    while os.read(0, 1024):  # not by sys.stdin, whose lock would be held at the interpreter's end
        pass
    os._exit(3)


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
    )


WORK: dict[str, Callable[[Values, Access], Values]] = {
    "download_base": _download_base,
    "fetch_adapter": _fetch_adapter,
    "publish_adapter": _publish_adapter,
}

if __name__ == "__main__":
    sys.exit(main())
