"""The guard: one program, its exit code, and its end when the life line closes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.supervisor.guard import exit_status
from app.supervisor.processes import GUARD

from .conftest import alive, read_pid, wait_until

Guard = subprocess.Popen[bytes]


@pytest.fixture
def guards() -> Iterator[list[Guard]]:
    """Guards that are ended with the test."""
    started: list[Guard] = []
    yield started
    for one in started:
        with one:  # closes the life line and waits
            pass


def start(guards: list[Guard], *command: str, options: tuple[str, ...] = ()) -> Guard:
    guards.append(
        subprocess.Popen(
            [sys.executable, "-S", "-E", str(GUARD), *options, "--", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    )
    return guards[-1]


def close_life_line(guard: Guard) -> None:
    assert guard.stdin is not None
    guard.stdin.close()


def test_it_forwards_output(guards: list[Guard]) -> None:
    guard = start(guards, "sh", "-c", "echo painted")
    assert guard.stdout is not None
    assert guard.stdout.read() == b"painted\n"


def test_the_exit_code_is_the_programs_own_while_the_line_is_open(guards: list[Guard]) -> None:
    assert start(guards, "sh", "-c", "exit 3").wait(120) == 3


def test_a_program_ended_by_a_signal_counts_as_in_a_shell(guards: list[Guard]) -> None:
    assert start(guards, "sh", "-c", "kill -TERM $$").wait(120) == 128 + signal.SIGTERM


def test_exit_status_of_a_plain_exit() -> None:
    assert exit_status(7 << 8) == 7


def test_a_program_that_is_not_there_is_named(guards: list[Guard]) -> None:
    assert start(guards, "/no/such/program").wait(120) == 127


def test_closing_the_life_line_kills_the_program_and_its_children(
    guards: list[Guard], tmp_path: Path
) -> None:
    script = f"sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/leader; wait"
    guard = start(guards, "sh", "-c", script)
    leader, child = read_pid(tmp_path / "leader"), read_pid(tmp_path / "child")

    close_life_line(guard)

    assert guard.wait(120) == 128 + signal.SIGKILL
    wait_until(lambda: not alive(leader) and not alive(child))


def test_a_grandchild_in_a_group_of_its_own_is_killed_too(
    guards: list[Guard], tmp_path: Path
) -> None:
    code = (
        "import subprocess, pathlib\n"
        "one = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(f'{{one.pid}}\\n')\n"
        "one.wait()\n"
    )
    guard = start(guards, sys.executable, "-c", code)
    grandchild = read_pid(tmp_path / "pid")

    close_life_line(guard)

    guard.wait(120)
    wait_until(lambda: not alive(grandchild))


def test_a_program_that_ignores_sigterm_still_ends_with_the_line(
    guards: list[Guard], tmp_path: Path
) -> None:
    script = f"trap '' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 1; done"
    guard = start(guards, "sh", "-c", script)
    pid = read_pid(tmp_path / "pid")
    guard.send_signal(signal.SIGTERM)

    close_life_line(guard)

    guard.wait(120)
    wait_until(lambda: not alive(pid))


def test_sigterm_reaches_the_program_which_may_end_in_its_own_way(
    guards: list[Guard], tmp_path: Path
) -> None:
    script = f"trap 'exit 42' TERM; echo $$ > {tmp_path}/pid; while :; do sleep 0.05; done"
    guard = start(guards, "sh", "-c", script)
    read_pid(tmp_path / "pid")
    guard.send_signal(signal.SIGTERM)
    assert guard.wait(120) == 42


def test_what_a_dead_program_leaves_in_its_group_is_swept(
    guards: list[Guard], tmp_path: Path
) -> None:
    guard = start(guards, "sh", "-c", f"sleep 600 & echo $! > {tmp_path}/pid; exit 1")
    left = read_pid(tmp_path / "pid")
    assert guard.wait(120) == 1
    wait_until(lambda: not alive(left))


def test_the_pid_file_names_the_program(guards: list[Guard], tmp_path: Path) -> None:
    file = tmp_path / "web.pid"
    script = f"echo $$ > {tmp_path}/own; sleep 600"
    start(guards, "sh", "-c", script, options=("--pid-file", str(file)))
    assert read_pid(file) == read_pid(tmp_path / "own")


def test_niceness_is_inherited(guards: list[Guard]) -> None:
    guard = start(guards, "nice", options=("--nice", "4"))
    assert guard.stdout is not None
    before = int(subprocess.check_output(["nice"]))
    assert int(guard.stdout.read()) == min(19, before + 4)
