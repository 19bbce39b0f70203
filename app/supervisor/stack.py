"""The embedded stack: which programs run on one machine, and with which settings."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from app.registry.config import Settings
from app.supervisor.broker import start_broker
from app.supervisor.lock import DataFolderLock, Owner
from app.supervisor.processes import Folders, Program, python_program
from app.supervisor.supervisor import StopOrder, Supervisor

QUEUES = ("train", "render", "io")
WORKER_NICENESS = 3  # pages come first; a trainer is nicer still by itself


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


def remove_socket_folder(owner: Owner | None) -> None:
    """Remove the folder of the broker's socket, which nobody else knows after a crash."""
    if owner is None or not owner.socket_folder:
        return
    folder = Path(owner.socket_folder)
    if folder.name.startswith("brushwork-"):
        shutil.rmtree(folder, ignore_errors=True)


def start_own_broker(
    supervisor: Supervisor, settings: Settings, lock: DataFolderLock, *, url: str
) -> dict[str, str]:
    """Start the broker unless one was given; the environment of all that use it."""
    broker = start_broker(
        settings.broker_url, data_dir=settings.data_dir, start=supervisor.start, say=supervisor.say
    )
    if broker.process is not None:
        supervisor.adopt(broker.process.program, StopOrder.BROKER, broker.process)
    lock.write(Owner(os.getpid(), url, str(broker.folder or "")))
    return stack_environment(settings, broker_url=broker.url)


def stack_environment(settings: Settings, *, broker_url: str) -> dict[str, str]:
    """What the children must know although it may have been given to us as flags."""
    return {
        "BRUSHWORK_HOST": settings.host,
        "BRUSHWORK_PORT": str(settings.port),
        "BRUSHWORK_DATA_DIR": str(settings.data_dir.absolute()),
        "BRUSHWORK_BROKER_URL": broker_url,
        "BRUSHWORK_LOG_LEVEL": settings.log_level,
    }


def worker_program(queue: str, environment: dict[str, str]) -> Program:
    """The worker of one queue."""
    return python_program(
        f"worker-{queue}",
        *("worker", "--queue", queue),
        environment=environment,
        nice=WORKER_NICENESS,
    )


def web_program(server: socket.socket, migrated: int, environment: dict[str, str]) -> Program:
    """The web server on an inherited socket, which waits until the pipe `migrated` is closed."""
    descriptors = (server.fileno(), migrated)
    return python_program(
        "web",
        *("web", "--fd", str(descriptors[0]), "--after-fd", str(descriptors[1])),
        environment=environment,
        pass_fds=descriptors,
    )


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
    reading, writing = os.pipe()
    try:
        # Web loads its code while the migration runs, and serves once this pipe is closed. Its
        # reading end stays open for later starts of web, which then need not wait.
        with os.fdopen(reading, "rb") as migrated:
            with os.fdopen(writing, "wb"):
                environment = start_own_broker(supervisor, settings, lock, url=url)
                supervisor.add(web_program(server, migrated.fileno(), environment), StopOrder.WEB)
                supervisor.run_once(python_program("migrate", "migrate", environment=environment))
            for queue in QUEUES:
                supervisor.add(worker_program(queue, environment), StopOrder.WORKER)
            return supervisor.run(ready_url=f"{url}/readyz")
    except BaseException:
        supervisor.kill()
        raise
    finally:
        remove_socket_folder(lock.owner())
