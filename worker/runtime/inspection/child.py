"""The process that inspects one base model: `python -m worker.runtime.inspection.child PATH`.

It imports no torch, so it starts in less than a tenth of a second. It writes one JSON object to
stdout, `{"info": …}` or `{"error": "a sentence"}`, and ends as soon as stdin is closed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from worker.core.bases.family import BaseModelError
from worker.core.bases.inspect import inspect_base

ORPHANED = 75


def main() -> None:
    """Inspect the base model that the arguments name."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        answer: dict[str, Any] = {"info": asdict(inspect_base(Path(sys.argv[1])))}
    except BaseModelError as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer, default=str))
    sys.stdout.flush()
    os._exit(0)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(ORPHANED)  # the main thread may wait for a folder for ever


if __name__ == "__main__":
    main()
