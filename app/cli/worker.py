"""`brushwork worker --queue Q`: one worker, whose own room is `worker.runtime.launch`."""

from __future__ import annotations

import os
from argparse import Namespace
from importlib import import_module

from app.registry.config import Settings


def run(arguments: Namespace, settings: Settings) -> int:
    """Work until SIGTERM; a running training is handed back with its checkpoint then."""
    # Workers and their children read the environment when they are imported.
    os.environ["BRUSHWORK_DATA_DIR"] = str(settings.data_dir.absolute())
    # Threads that wait for each other sleep instead of spinning: on a machine that is busy with
    # something else too, steps came 4 to 27 times as fast; on an idle one, as fast as before.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # By name, because `app` otherwise knows nothing of `worker`: this is where a process changes
    # sides, before anything of it was loaded.
    launch = import_module("worker.runtime.launch")
    launch.run([arguments.queue], log_level=settings.log_level, thread_setting=settings.threads)
    return 0
