"""`brushwork worker --queue Q`: runs one worker through `worker.runtime.launch`."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from importlib import import_module

from app.cli.database import UnreachableDatabase, require_database
from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Process jobs until SIGTERM; a running training then saves a checkpoint and is requeued.

    Raises UnusableDatabase.
    """
    if not arguments.libraries:  # else started after a migration
        try:
            require_database(settings)
        except UnreachableDatabase as error:
            print(f"{error.detail} This worker waits for it.", file=sys.stderr, flush=True)
    # Workers and their children read the environment on import.
    os.environ["BRUSHWORK_DATA_DIR"] = str(settings.data_dir.absolute())
    # Waiting threads sleep instead of spinning: on a busy machine, steps are 4 to 27 times as fast
    # (measured); on an idle one, there is no difference.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # imported by name after the environment is set, because it loads the worker's libraries
    launch = import_module("worker.runtime.launch")
    launch.run(
        [arguments.queue],
        log_level=settings.log_level,
        thread_setting=settings.threads,
        libraries=arguments.libraries,
    )
    return 0
