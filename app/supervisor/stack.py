"""The embedded stack: the programs that run on one machine, and their settings."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

from app.registry.config import SECRETS, Settings
from app.registry.job_kinds.states import Queue
from app.supervisor.broker import Broker, BrokerError, make_socket_folder, start_broker
from app.supervisor.forking import ForkServers, can_fork
from app.supervisor.lock import DataFolderLock, LockOwner
from app.supervisor.processes import Folders, Program, python_program
from app.supervisor.supervisor import StopOrder, Supervisor

START_BYTES = 2_000_000  # lock, logs and an empty database
WORKER_NICENESS = 3  # pages come first; a trainer is nicer still by itself


class DataFolderError(Exception):
    """The data folder cannot be used; the message says what to do."""


def prepare_data_folder(folder: Path) -> None:
    """Create the data folder, private to this user.

    Raises DataFolderError if it is read-only or its disk is full.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as trial:
            trial.write(bytes(START_BYTES))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataFolderError(
                f"The disk of the data folder {folder} is full. Free some space, or choose another "
                "folder with --data-dir FOLDER or BRUSHWORK_DATA_DIR."
            ) from error
        raise DataFolderError(
            f"The data folder {folder} cannot be written: {error.strerror or error}. "
            "Choose another with --data-dir FOLDER or BRUSHWORK_DATA_DIR."
        ) from error


def remove_socket_folder(owner: LockOwner | None) -> None:
    """Remove the folder of the sockets, left over from a crash."""
    if owner is None or not owner.socket_folder:
        return
    folder = Path(owner.socket_folder)
    if folder.name.startswith("brushwork-"):
        shutil.rmtree(folder, ignore_errors=True)


def start_own_broker(supervisor: Supervisor, settings: Settings) -> Broker:
    """Start a broker unless a URL is configured."""
    broker = start_broker(
        settings.broker_url, data_dir=settings.data_dir, start=supervisor.start, say=supervisor.say
    )
    if broker.process is not None:
        supervisor.adopt(broker.process.program, StopOrder.BROKER, broker.process)
    return broker


def find_socket_folder(settings: Settings, broker: Broker) -> Path | None:
    """A private folder for sockets, if some process needs one."""
    if broker.folder is not None or not can_fork(settings.device):
        return broker.folder
    try:
        return make_socket_folder()
    except BrokerError:
        return None


def start_fork_servers(
    supervisor: Supervisor, settings: Settings, folder: Path | None, environment: dict[str, str]
) -> ForkServers | None:
    """Start the fork servers where processes can fork; None elsewhere."""
    if folder is None or not can_fork(settings.device):
        return None
    # they only load code
    without_secrets = {name: one for name, one in environment.items() if name not in SECRETS}
    servers = ForkServers(folder, without_secrets, nice=WORKER_NICENESS)
    for program in servers.programs():
        supervisor.add(program, StopOrder.FORK_SERVER)
    return servers


def stack_environment(settings: Settings, *, broker_url: str) -> dict[str, str]:
    """Environment for the child processes, including settings that were given as flags."""
    return {
        "BRUSHWORK_HOST": settings.host,
        "BRUSHWORK_PORT": str(settings.port),
        "BRUSHWORK_DATA_DIR": str(settings.data_dir.absolute()),
        "BRUSHWORK_BROKER_URL": broker_url,
        "BRUSHWORK_LOG_LEVEL": settings.log_level,
    }


def worker_program(queue: Queue, environment: dict[str, str]) -> Program:
    """The worker program for one queue."""
    return python_program(
        f"worker-{queue}",
        *("worker", "--queue", queue),
        environment=environment,
        nice=WORKER_NICENESS,
    )


def web_program(server: socket.socket, migrated: int, environment: dict[str, str]) -> Program:
    """The web server on an inherited socket; it starts when the pipe `migrated` is closed."""
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
    """Start broker, migrations, web server and workers, keep them running; return the exit code.

    `server` is the listening socket, `lock` the acquired lock of the data folder. Raises
    StartError or BrokerError if the start fails; started programs are stopped first.
    """
    supervisor = Supervisor(Folders.below(settings.data_dir), say, on_ready)
    supervisor.take_signals()
    reading, writing = os.pipe()
    try:
        # The web server loads its code while the migration runs, and serves once this pipe is
        # closed. The reading end stays open, so that restarts of the web server do not wait.
        with os.fdopen(reading, "rb") as migrated:
            with os.fdopen(writing, "wb"):
                broker = start_own_broker(supervisor, settings)
                folder = find_socket_folder(settings, broker)
                lock.write(LockOwner(os.getpid(), url, str(folder or "")))
                environment = stack_environment(settings, broker_url=broker.url)
                forks = start_fork_servers(supervisor, settings, folder, environment)
                web = web_program(server, migrated.fileno(), environment)
                migration = python_program(
                    "migrate", "migrate", "--before-serve", environment=environment
                )
                if forks:
                    web, migration = forks.early(web), forks.early(migration)
                supervisor.add(web, StopOrder.WEB)
                supervisor.run_once(migration)
            for queue in Queue:
                program = worker_program(queue, environment)
                program = forks.worker(program, queue) if forks else program
                supervisor.add(program, StopOrder.WORKER)
            return supervisor.run(ready_url=f"{url}/readyz")
    except BaseException:
        supervisor.kill()
        raise
    finally:
        remove_socket_folder(lock.owner())
