"""Processes that begin as forks: what they are given, and how they and others end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker.runtime.job_loops import wait_for
from worker.runtime.device import child_environment
from worker.runtime.forking import CLIENT, fork_command
from worker.runtime.forking.client import CONNECT_SECONDS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes fork only on Linux")
PROBE = "tests.worker.runtime.fork_probe"


class Server:
    """A fork server with two sockets, which has imported one module for each."""

    def __init__(self, folder: Path) -> None:
        self.first, self.second = str(folder / "first.sock"), str(folder / "second.sock")
        stages = (self.first, "wave", "--", self.second, "colorsys")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worker.runtime.forking.server", *stages],
            env=child_environment(1),
        )

    def start(
        self, what: str, *arguments: str, client: Path = CLIENT, **options: Any
    ) -> subprocess.Popen[str]:
        """The client of a fork that runs the probe."""
        command = (sys.executable, "-m", PROBE, what, *arguments)
        forked = fork_command(self.second, "probe", command)
        assert str(CLIENT) in forked
        return subprocess.Popen(
            [str(client) if word == str(CLIENT) else word for word in forked],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="bw-") as folder:
        opened = Server(Path(folder))
        yield opened
        opened.process.kill()
        opened.process.wait()


def told(client: subprocess.Popen[str]) -> dict[str, Any]:
    """The first message of the probe."""
    assert client.stdout is not None
    return json.loads(client.stdout.readline())  # type: ignore[no-any-return]


def impatient_client(folder: Path) -> Path:
    """The client, which waits for a server that is not there for less time."""
    program = CLIENT.read_text()
    wait = f"CONNECT_SECONDS = {CONNECT_SECONDS}"
    assert wait in program
    path = folder / CLIENT.name
    path.write_text(program.replace(wait, "CONNECT_SECONDS = 0.5"))
    return path


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def blocks(pid: int, number: int) -> bool:
    """Whether a process blocks a signal."""
    (mask,) = re.findall(r"SigBlk:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(mask, 16) & 1 << number - 1)


def test_a_fork_is_what_its_client_would_have_been(server: Server, tmp_path: Path) -> None:
    path = os.pathsep.join(sys.path)
    environment = {"LC_ALL": "C.UTF-8", "PYTHONPATH": path, "SECRET": "hush"}
    own = os.getpriority(os.PRIO_PROCESS, 0)
    client = server.start(
        "echo", "a b", "", cwd=tmp_path, env=environment, preexec_fn=lambda: os.nice(1)
    )
    said = told(client)
    _, errors = client.communicate("hello")
    assert (client.returncode, errors.strip()) == (7, "hello")
    assert said["environment"] == environment
    assert (said["arguments"], said["folder"]) == (["a b", ""], str(tmp_path))
    assert said["nice"] == min(own + 1, 19)
    assert said["preloaded"]
    assert (said["name"], said["group"]) == ("probe", said["pid"])
    assert said["descriptors"] == [0, 1, 2]
    assert b"hush" not in Path(f"/proc/{server.process.pid}/environ").read_bytes()
    assert len(list(Path(f"/proc/{server.process.pid}/task").iterdir())) == 1


def test_a_descriptor_keeps_its_number(server: Server) -> None:
    reading, writing = os.pipe()
    command = fork_command(server.first, "probe", (sys.executable, "-m", PROBE, "abort"))
    split = command.index("--")
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb"):
        client = subprocess.Popen(
            [*command[:split], str(writing), *command[split:]],
            stdout=subprocess.PIPE,
            pass_fds=[writing],
            text=True,
        )
        assert told(client)["descriptors"] == [0, 1, 2, writing]
        client.communicate()
    assert client.returncode == 128 + signal.SIGABRT


def test_signals_reach_a_fork_and_a_killed_client_takes_it_along(server: Server) -> None:
    asked, killed = server.start("sleep"), server.start("sleep")
    asked_pid, killed_pid = told(asked)["pid"], told(killed)["pid"]
    assert asked.pid != asked_pid
    asked.terminate()
    asked.communicate()
    assert asked.returncode == 5
    killed.kill()
    killed.communicate()
    wait_for(lambda: is_gone(asked_pid) and is_gone(killed_pid))


def test_a_signal_while_a_fork_begins_is_passed_on(server: Server) -> None:
    server.process.send_signal(signal.SIGSTOP)
    try:
        client = server.start("sleep")
        wait_for(lambda: blocks(client.pid, signal.SIGTERM))
        client.terminate()
    finally:
        server.process.send_signal(signal.SIGCONT)
    client.communicate()
    assert client.returncode in {5, 128 + signal.SIGTERM}  # the fork's, not -SIGTERM of the client


def test_a_killed_server_takes_its_forks_along_and_commands_then_run_themselves(
    tmp_path: Path,
) -> None:
    with tempfile.TemporaryDirectory(prefix="bw-") as folder:
        server = Server(Path(folder))
        client = server.start("sleep")
        pid = told(client)["pid"]
        server.process.kill()
        server.process.wait()
        client.communicate()
        assert client.returncode == 128 + signal.SIGKILL
        wait_for(lambda: is_gone(pid))
        alone = server.start("echo", client=impatient_client(tmp_path))
        said = told(alone)
        alone.communicate()
    assert (alone.returncode, said["pid"], said["preloaded"]) == (7, alone.pid, False)
