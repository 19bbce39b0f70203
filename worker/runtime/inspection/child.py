"""The process that looks at one model: `python -m worker.runtime.inspection.child KIND PATH`.

It imports no torch, so it starts in less than a tenth of a second. It writes one JSON object to
stdout, `{"info": …}` or `{"error": "a sentence"}`, and ends as soon as stdin is closed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from worker.core.bases.family import BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.captioning.local.inspect import UnusableModel, inspect_caption_model
from worker.core.child_pipes import read_lines

INSPECT: Mapping[str, Callable[[Path], Any]] = {
    "inspect_base": inspect_base,
    "check_caption_model": inspect_caption_model,
}


def main() -> None:
    """Inspect the model that the arguments name; KIND is that of a job."""
    read_lines(lambda _: None)
    try:
        answer: dict[str, Any] = {"info": asdict(INSPECT[sys.argv[1]](Path(sys.argv[2])))}
    except (BaseModelError, UnusableModel) as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer, default=str))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
