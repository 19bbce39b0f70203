"""`brushwork serve`: runs everything on this machine under one supervisor."""

from __future__ import annotations

import os
from argparse import Namespace

from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Serve until stopped; return 0 also if Brushwork already runs on this data folder."""
    if os.name != "posix":
        print(
            "Brushwork runs on Linux and macOS. On Windows, run it in WSL 2 or with Docker.",
            flush=True,
        )
        return 2
    # after the check, because the supervisor needs process groups and file locks
    from app.cli.serving import serve

    return serve(settings)
