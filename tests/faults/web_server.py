"""`brushwork web` as a process of its own."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

STOP_SECONDS = 30


@contextlib.contextmanager
def web_server(data_dir: Path, *, files: int | None = None, **settings: str) -> Iterator[str]:
    """The address of a web server that may have `files` files open; it logs to `web.log`."""

    def limit_files() -> None:
        if files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    environment = os.environ | {"BRUSHWORK_DATA_DIR": str(data_dir)}
    environment |= {f"BRUSHWORK_{name.upper()}": value for name, value in settings.items()}
    with (data_dir / "web.log").open("w") as log:
        web = subprocess.Popen(
            [sys.executable, "-m", "app", "web", "--port", "0"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            preexec_fn=limit_files,
        )
        assert web.stdout is not None
        try:
            yield web.stdout.readline().rpartition(" ")[2].strip()
        finally:
            web.terminate()
            web.wait(STOP_SECONDS)
            web.stdout.close()
