"""The real stack, installed from the wheel, on a free port and in folders of its own.

What is tested here thus also holds for `pip install`; tests/app/supervisor starts a checkout.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.wheel import build_wheel, install_wheel

READY = re.compile(r"^Brushwork is ready at (http://\S+)$", re.MULTILINE)
START_SECONDS = 240.0  # generous, as the next: the suite shares two cores
END_SECONDS = 120.0


@dataclass
class Stack:
    """A running `brushwork serve`."""

    command: list[str]
    process: subprocess.Popen[str]
    data_dir: Path
    url: str = ""
    output: list[str] = field(default_factory=list)

    def client(self) -> httpx.Client:
        """A client of its REST API."""
        return httpx.Client(base_url=self.url, timeout=240)

    def logs(self) -> str:
        """What its processes wrote, for a test that failed."""
        files = sorted((self.data_dir / "logs").glob("*.log"))
        tails = [f"== {file.name}\n{file.read_text(errors='replace')[-4000:]}" for file in files]
        return "\n".join([*self.output, *tails])


def start_stack(brushwork: Sequence[str], data_dir: Path, **environment: str) -> Stack:
    """Start everything with this `brushwork` command, and wait until the page answers."""
    flags = ["--port", "0", "--no-browser", "--data-dir", str(data_dir)]
    command = [*brushwork, "serve", *flags]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("BRUSHWORK_")}
    clean.pop("PYTHONPATH", None)
    process = subprocess.Popen(
        command,
        cwd=data_dir,
        env=clean | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    stack = Stack(command, process, data_dir)
    threading.Thread(target=_read, args=(stack,), daemon=True).start()
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        found = READY.search("\n".join(stack.output))
        if found:
            stack.url = found.group(1)
            return stack
        time.sleep(0.05)
    stop_stack(stack)
    pytest.fail(f"the stack did not start:\n{stack.logs()}")


def _read(stack: Stack) -> None:
    assert stack.process.stdout is not None
    with stack.process.stdout as lines:
        stack.output.extend(line.rstrip("\n") for line in lines)


def stop_stack(stack: Stack) -> int:
    """End it as Ctrl-C does; its exit code."""
    if stack.process.poll() is None:
        stack.process.send_signal(signal.SIGINT)
    try:
        return stack.process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        stack.process.kill()
        raise


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One running stack for the tests of a module."""
    wheel = build_wheel(tmp_path_factory.mktemp("wheel"))
    programs = install_wheel(wheel, tmp_path_factory.mktemp("installed"))
    running = start_stack([str(programs / "brushwork")], tmp_path_factory.mktemp("stack"))
    yield running
    assert stop_stack(running) == 0, running.logs()


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx.Client]:
    """A client of the stack's REST API."""
    with stack.client() as client:
        yield client


def poll(client: httpx.Client, place: str, *, seconds: float) -> dict[str, Any]:
    """The job at `place` once it has ended."""
    until = time.monotonic() + seconds
    while True:
        job: dict[str, Any] = client.get(f"/api/v1{place}").raise_for_status().json()
        if job["status"] in ("succeeded", "failed", "canceled") or time.monotonic() > until:
            return job
        time.sleep(0.2)
