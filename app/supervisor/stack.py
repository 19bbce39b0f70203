"""The embedded stack: which programs run on one machine, and with which settings."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from app.config import Settings
from app.supervisor.broker import start_broker
from app.supervisor.lock import DataFolderLock, Owner
from app.supervisor.processes import Folders, python_program
from app.supervisor.supervisor import StopOrder, Supervisor

QUEUES = ("train", "render", "io")
# Training fills every core; pages and previews come first.
NICENESS = {"train": 5, "render": 2, "io": 3}


class DataFolderError(Exception):
    """The data folder cannot be used; the message says what to do."""


def prepare_data_folder(folder: Path) -> None:
    """Make the data folder, private to this user, and try to write in it.

    Raises DataFolderError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DataFolderError(
            f"The data folder {folder} cannot be written: {error.strerror or error}. "
            "Choose another with --data-dir FOLDER or BRUSHWORK_DATA_DIR."
        ) from error


def clear_after_crash(previous: Owner | None) -> None:
    """Remove the socket folder of a run that could not do it itself."""
    if previous is None or not previous.socket_folder:
        return
    folder = Path(previous.socket_folder)
    if folder.name.startswith("brushwork-"):
        shutil.rmtree(folder, ignore_errors=True)


def stack_environment(settings: Settings, *, broker_url: str) -> dict[str, str]:
    """What the children must know although it may have been given to us as flags."""
    return {
        "BRUSHWORK_HOST": settings.host,
        "BRUSHWORK_PORT": str(settings.port),
        "BRUSHWORK_DATA_DIR": str(settings.data_dir),
        "BRUSHWORK_BROKER_URL": broker_url,
        "BRUSHWORK_LOG_LEVEL": settings.log_level,
    }


def run_stack(
    settings: Settings,
    server: socket.socket,
    lock: DataFolderLock,
    *,
    url: str,
    say: Callable[[str], None],
    on_ready: Callable[[], None],
) -> int:
    """Start broker, migrations, web and workers, and keep them running; the exit code.

    `server` is the listening socket, `lock` the held lock of the data folder. Raises StartError
    and BrokerError when the start fails; everything started is ended then.
    """
    supervisor = Supervisor(Folders.below(settings.data_dir), say, on_ready)
    supervisor.take_signals()
    socket_folder: Path | None = None
    try:
        broker = start_broker(
            settings.broker_url,
            data_dir=settings.data_dir,
            start=supervisor.start,
            say=say,
        )
        socket_folder = broker.folder
        if broker.process is not None:
            supervisor.adopt(broker.process.program, StopOrder.BROKER, broker.process)
        lock.write(Owner(os.getpid(), url, str(broker.folder or "")))
        environment = stack_environment(settings, broker_url=broker.url)
        supervisor.run_once(python_program("migrate", "migrate", environment=environment))
        web = python_program(
            "web",
            *("web", "--fd", str(server.fileno())),
            environment=environment,
            fd=server.fileno(),
        )
        supervisor.add(web, StopOrder.WEB)
        for queue in QUEUES:
            worker = python_program(
                f"worker-{queue}",
                *("worker", "--queue", queue),
                environment=environment,
                nice=NICENESS[queue],
            )
            supervisor.add(worker, StopOrder.WORKER)
        return supervisor.run(ready_url=f"{url}/readyz")
    except BaseException:
        supervisor.kill()
        raise
    finally:
        if socket_folder is not None:
            with suppress(OSError):
                shutil.rmtree(socket_folder)
