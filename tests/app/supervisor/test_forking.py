"""Where processes fork, and what the programs of the fork servers are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from app.registry.config import SECRETS
from app.registry.job_kinds.states import Queue
from app.supervisor.forking import CLIENT, ForkServers, can_fork
from app.supervisor.processes import Program


@pytest.mark.skipif(sys.platform != "linux", reason="processes fork only on Linux")
@pytest.mark.parametrize(
    ("device", "node", "forks"),
    [
        ("cpu", "nvidia0", True),
        ("auto", "null", True),
        ("auto", "nvidia0", False),
        ("auto", "dxg", False),
        ("cuda:1", "null", False),
        ("mps", "null", False),
    ],
)
def test_only_workers_on_a_cpu_fork(tmp_path: Path, device: str, node: str, forks: bool) -> None:
    (tmp_path / node).touch()
    assert can_fork(device, devices=tmp_path) == forks


def test_another_system_does_not_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not can_fork("cpu", devices=tmp_path)


def test_each_worker_is_a_fork_of_what_it_needs(tmp_path: Path) -> None:
    servers = ForkServers(tmp_path, {"BRUSHWORK_PORT": "1"}, nice=3)
    first, second = servers.programs()
    assert (first.nice, second.nice) == (0, 3)
    assert first.hidden == second.hidden == SECRETS
    assert first.environment["OMP_NUM_THREADS"] == "1"
    assert CLIENT.exists()
    plain = Program("worker", ("python", "-m", "app"), {"SECRET": "hush"}, pass_fds=(4, 5))
    for queue in Queue:
        command = servers.worker(plain, queue).command
        name = "libraries" if queue is Queue.RENDER else "registry"
        assert str(tmp_path / f"{name}.sock") in command[: command.index("--")]
        assert command[-2:] == ("--libraries", str(tmp_path / "libraries.sock"))
    web = servers.early(plain).command
    assert web[-8:] == (str(tmp_path / "web.sock"), "worker", "4", "5", "--", *plain.command)
