"""Programs under a guard: logs, warnings, endings."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.supervisor.processes import WARNING_LINE, Folders, Process, Program

from .conftest import alive, read_pid, wait_until

Start = Callable[..., Process]


@pytest.fixture
def start(folders: Folders) -> Iterator[Start]:
    """Starts a shell script as a program named `web`; ended with the test."""
    started: list[Process] = []

    def start_script(script: str, **options: object) -> Process:
        program = Program("web", ("sh", "-c", script))
        started.append(Process(program, folders, **options))  # type: ignore[arg-type]
        return started[-1]

    yield start_script
    for process in started:
        process.kill()
        process.wait(120)


def test_everything_said_lands_in_the_log(start: Start, folders: Folders) -> None:
    process = start("echo one; echo two >&2")
    assert process.wait(120) == 0
    assert (folders.logs / "web.log").read_text() == "one\ntwo\n"
    assert process.last_lines == ["one", "two"]


def test_a_second_start_appends_to_the_log(start: Start, folders: Folders) -> None:
    start("echo one").wait(120)
    start("echo two").wait(120)
    assert (folders.logs / "web.log").read_text() == "one\ntwo\n"


def test_only_warnings_are_passed_on(start: Start) -> None:
    passed: list[tuple[str, str]] = []
    process = start(
        "echo fine; echo '[2026] ERROR broken'; echo fine",
        on_warning=lambda name, line: passed.append((name, line)),
    )
    process.wait(120)
    assert passed == [("web", "[2026] ERROR broken")]


@pytest.mark.parametrize(
    "line",
    [
        "[2026-11-25 04:00:00,000: WARNING/MainProcess] Connection lost",
        "2026-11-25 [warning  ] disk nearly full",
        '{"level": "error", "event": "upload failed"}',
        "sqlalchemy.exc.OperationalError: disk I/O error",
    ],
)
def test_a_line_that_a_person_should_see_is_known(line: str) -> None:
    assert WARNING_LINE.search(line)


@pytest.mark.parametrize(
    "line",
    [
        "[2026: INFO/MainProcess] ready",
        "GET /static/error.css 200",
        "0 errors",
        "x.py:893: SecurityWarning: You're root",
    ],
)
def test_an_ordinary_line_stays_in_the_log(line: str) -> None:
    assert not WARNING_LINE.search(line)


def test_the_end_is_told_with_the_exit_code(start: Start) -> None:
    ended: list[int | None] = []
    start("exit 5", on_end=lambda process: ended.append(process.exit_code)).wait(120)
    assert ended == [5]


def test_terminate_lets_the_program_end_in_its_own_way(start: Start, tmp_path: Path) -> None:
    process = start(f"trap 'exit 9' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done")
    read_pid(tmp_path / "pid")
    process.terminate()
    assert process.wait(120) == 9


def test_kill_ends_what_ignores_everything(start: Start, tmp_path: Path) -> None:
    process = start(f"trap '' TERM INT; echo $$ > {tmp_path}/pid; while :; do sleep 1; done")
    pid = read_pid(tmp_path / "pid")
    process.kill()
    assert process.wait(120) == 128 + signal.SIGKILL
    assert not alive(pid)


def test_killing_the_guard_itself_leaves_no_orphan(
    start: Start, folders: Folders, tmp_path: Path
) -> None:
    process = start(f"echo $$ > {tmp_path}/pid; sleep 600")
    program = read_pid(tmp_path / "pid")
    guard = int(Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[1])
    assert read_pid(folders.pids / "web.pid") == program

    os.kill(guard, signal.SIGKILL)

    process.wait(120)
    wait_until(lambda: not alive(program))
    assert not (folders.pids / "web.pid").exists()
