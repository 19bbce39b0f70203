"""The supervisor: restarts, gives up, drains in order; told with small shell programs."""

from __future__ import annotations

import http.server
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from app.supervisor import supervisor as module
from app.supervisor.processes import Folders, Program
from app.supervisor.supervisor import StartError, StopOrder, Supervisor

from .conftest import alive, read_pid, wait_until

NO_PAGE = "http://127.0.0.1:9/readyz"


@dataclass
class Running:
    """A supervisor in a thread, as a person sees it."""

    supervisor: Supervisor
    said: list[str]
    codes: list[int] = field(default_factory=list)
    thread: threading.Thread | None = None

    def begin(self, ready_url: str = NO_PAGE) -> None:
        """Run it in a thread."""

        def run() -> None:
            self.codes.append(self.supervisor.run(ready_url=ready_url))

        self.thread = threading.Thread(target=run)
        self.thread.start()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.supervisor._on_signal(signal.SIGINT, None)

    def end(self) -> int:
        """The exit code, once it ended."""
        assert self.thread is not None
        self.thread.join(120)
        assert not self.thread.is_alive(), self.said
        return self.codes[0]


@pytest.fixture
def running(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A supervisor that waits a twentieth of the time between restarts."""
    quick = tuple(seconds / 20 for seconds in module.BACKOFF_SECONDS)
    monkeypatch.setattr(module, "BACKOFF_SECONDS", quick)
    said: list[str] = []
    one = Running(Supervisor(folders, said.append), said)
    yield one
    if one.thread is not None and one.thread.is_alive():
        one.interrupt()
        one.interrupt()
        one.thread.join(120)
    one.supervisor.kill()


def script(name: str, text: str) -> Program:
    return Program(name, ("sh", "-c", text))


def test_what_ends_is_started_again(running: Running, tmp_path: Path) -> None:
    text = f"echo $$ > {tmp_path}/pid; exec sleep 600"
    running.supervisor.add(script("worker-io", text), StopOrder.WORKER)
    running.begin()
    first = read_pid(tmp_path / "pid")

    os.kill(first, signal.SIGKILL)

    wait_until(lambda: read_pid(tmp_path / "pid") != first)
    assert "worker-io ended (exit code 137)" in running.said[0]


def test_pauses_between_restarts_grow_to_thirty_seconds() -> None:
    assert module.BACKOFF_SECONDS == (1, 2, 4, 8, 16, 30)


def test_a_worker_that_never_starts_is_tried_for_ever(running: Running, tmp_path: Path) -> None:
    (tmp_path / "starts").touch()
    running.supervisor.add(
        script("worker-io", f"echo x >> {tmp_path}/starts; exit 1"), StopOrder.WORKER
    )
    running.begin()
    wait_until(lambda: len((tmp_path / "starts").read_text()) > 2 * module.MAX_FAST_FAILURES)
    assert running.codes == []


def test_a_web_server_that_never_starts_ends_it_all_with_its_last_words(
    running: Running, tmp_path: Path
) -> None:
    worker = script("worker-io", f"echo $$ > {tmp_path}/pid; exec sleep 600")
    running.supervisor.add(worker, StopOrder.WORKER)
    text = f"echo x >> {tmp_path}/starts; echo no such template; exit 1"
    running.supervisor.add(script("web", text), StopOrder.WEB)
    pid = read_pid(tmp_path / "pid")
    running.begin()

    assert running.end() == 1

    assert (tmp_path / "starts").read_text() == "x\n" * 5
    last_words = next(text for text in running.said if "right after starting" in text)
    assert "  no such template" in last_words
    assert "web.log" in last_words
    assert not alive(pid)


def test_an_interrupt_ends_web_and_workers_and_the_broker_last(
    running: Running, tmp_path: Path
) -> None:
    order = tmp_path / "order"
    for name, stop in (
        ("broker", StopOrder.BROKER),
        ("worker-train", StopOrder.WORKER),
        ("web", StopOrder.WEB),
    ):
        # a training needs a moment to save its checkpoint
        pause = "sleep 0.3; " if name == "worker-train" else ""
        text = (
            f"trap '{pause}echo {name} >> {order}; exit 0' TERM; echo $$ > {tmp_path}/{name}; "
            "while :; do sleep 0.02; done"
        )
        running.supervisor.add(script(name, text), stop)
        read_pid(tmp_path / name)
    running.begin()

    running.interrupt()

    assert running.end() == 0
    assert order.read_text().split() == ["web", "worker-train", "broker"]
    assert running.said[-1] == "Stopped."


def test_one_press_that_arrives_twice_still_drains(running: Running, tmp_path: Path) -> None:
    text = f"trap 'sleep 0.2; exit 0' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.02; done"
    running.supervisor.add(script("worker-train", text), StopOrder.WORKER)
    read_pid(tmp_path / "pid")
    running.begin()
    running.interrupt()
    running.interrupt()
    assert running.end() == 0


def test_a_second_interrupt_kills(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SAME_PRESS_SECONDS", 0.0)
    text = f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 1; done"
    running.supervisor.add(script("worker-train", text), StopOrder.WORKER)
    pid = read_pid(tmp_path / "pid")
    running.begin()
    running.interrupt()
    wait_until(lambda: any("Ctrl-C again" in text for text in running.said))

    running.interrupt()

    assert running.end() == 1
    wait_until(lambda: not alive(pid))


def test_what_ends_during_a_drain_is_not_started_again(running: Running, tmp_path: Path) -> None:
    text = f"echo x >> {tmp_path}/starts; exec sleep 600"
    running.supervisor.add(script("web", text), StopOrder.WEB)
    wait_until((tmp_path / "starts").exists)
    running.begin()
    running.interrupt()
    assert running.end() == 0
    assert (tmp_path / "starts").read_text() == "x\n"


def test_a_migration_that_fails_says_why(running: Running) -> None:
    with pytest.raises(StartError, match=r"(?s)migrate failed \(exit code 3\).*  disk full"):
        running.supervisor.run_once(script("migrate", "echo disk full; exit 3"))


def test_readiness_is_told_once_the_page_answers(running: Running) -> None:
    server, statuses = page_that_answers([503, 503, 200])
    with server:
        ready: list[bool] = []
        running.supervisor.on_ready = lambda: ready.append(True)
        running.begin(f"http://127.0.0.1:{server.server_port}/readyz")
        wait_until(lambda: ready)
        server.shutdown()
    assert ready == [True]
    assert statuses == []


def page_that_answers(statuses: list[int]) -> tuple[http.server.HTTPServer, list[int]]:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.pop(0))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Page)
    serve: Callable[[], None] = server.serve_forever
    threading.Thread(target=serve, daemon=True).start()
    return server, statuses
