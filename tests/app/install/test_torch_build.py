"""The choice of the build of torch, with a real pip and real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.install import InstallError, package_index
from app.install.disk import check_space
from app.install.package_index import problem_with
from app.install.pip import Pip
from app.install.torch_build import TorchBuild, Wishes, choose_build
from tests.app.install.conftest import CLOSED, Index, Machine
from worker.core import nvidia
from worker.core.nvidia import has_nvidia_gpu


@pytest.fixture(autouse=True)
def _as_on(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of the machine, and none of pip's that are set here."""
    monkeypatch.setattr("os.environ", dict(machine.environment))


def choose(machine: Machine, *pip_args: str, system: str = "Linux", **wishes: str) -> TorchBuild:
    pip = Pip(machine.venv / "bin" / "python", pip_args, is_terminal=False)
    return choose_build("torch>=2.6", pip, Wishes(**wishes), system=system)


def test_a_cpu_build_that_pip_is_configured_to_find_is_kept(
    machine: Machine, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.folder / "cpu"))
    build = choose(machine, cpu_index=f"{index.url}/cpu")
    assert build.index is None
    assert build.sentence == "2.9.0+cpu (CPU build), which pip is configured to find"
    (wheel,) = (index.folder / "cpu").iterdir()
    assert build.size.downloaded == wheel.stat().st_size
    assert not [path for path in index.paths if path.startswith("/cpu")]

    machine.add_gpu()
    sentence = choose(machine).sentence
    assert "cannot use the NVIDIA GPU of this machine" in sentence
    assert "make run TORCH_INDEX=https://" in sentence


def test_an_index_in_pip_args_is_the_users_choice(machine: Machine, index: Index) -> None:
    build = choose(machine, "--extra-index-url", f"{index.url}/cpu", cpu_index=CLOSED)
    assert build.sentence == "2.9.0+cpu (CPU build), which pip finds with PIP_ARGS"
    assert build.index is None


def test_an_index_named_by_the_user_is_used_or_refused(machine: Machine, index: Index) -> None:
    machine.add_gpu()
    assert choose(machine, index=f"{index.url}/cpu").index == f"{index.url}/cpu"
    with pytest.raises(InstallError, match=r"answered with status 404\. Check TORCH_INDEX"):
        choose(machine, index=f"{index.url}/nothing")


def test_an_index_that_cannot_be_reached_leaves_the_choice_to_pip(machine: Machine) -> None:
    build = choose(machine, cpu_index=CLOSED)
    assert build.index is None
    assert build.sentence == (
        f"the build that pip finds, because {CLOSED} could not be reached (Connection refused)"
    )


def test_proxies_of_the_environment_and_of_pip_are_used(
    machine: Machine, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = "http://wheels.invalid/cpu"
    assert "could not be reached" in str(problem_with(far, "torch", {}))
    assert problem_with(far, "torch", {"proxy": index.url}) is None
    monkeypatch.setenv("HTTP_PROXY", index.url)
    assert choose(machine, cpu_index=far).index == far
    assert index.hosts.count("wheels.invalid") == 2


def test_macos_has_one_build(machine: Machine) -> None:
    assert choose(machine, system="Darwin", cpu_index=CLOSED).sentence == "the build for macOS"


@pytest.mark.parametrize(
    ("answer", "code", "found"),
    [
        ("GPU 0: NVIDIA T4 (UUID: GPU-1)", 0, True),
        ("NVIDIA-SMI has failed because it could not communicate with the driver.", 9, False),
        ("No devices were found", 0, False),
    ],
)
def test_a_gpu_is_one_that_the_driver_lists(
    machine: Machine, answer: str, code: int, found: bool
) -> None:
    assert has_nvidia_gpu() is False
    machine.add_gpu(answer, code)
    assert has_nvidia_gpu() is found


def test_a_container_has_the_gpus_that_it_was_given(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvidia, "DRIVER", tmp_path / "gpus")
    monkeypatch.setattr(nvidia, "DEVICES", tmp_path)
    (tmp_path / "gpus" / "0000:01:00.0").mkdir(parents=True)
    assert has_nvidia_gpu() is False
    (tmp_path / "nvidia0").touch()
    assert has_nvidia_gpu() is True


# the index


@pytest.fixture
def silent(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that accepts, and then sends nothing or a byte now and then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def answer() -> None:
            connection = server.accept()[0]
            with connection:
                if request.param == "slow":
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
                while not ended.wait(0.01):
                    if request.param == "slow":
                        connection.sendall(b" ")

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        ended.set()
        thread.join()


@pytest.mark.parametrize("silent", ["mute", "slow"], indirect=True)
def test_an_index_that_never_ends_its_answer_is_given_up(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_index, "ANSWER_SECONDS", 0.2)
    problem = problem_with(silent, "torch", {})
    assert problem is not None
    assert "did not answer" in problem or "timed out" in problem


def test_an_index_without_a_wheel_for_this_python_is_no_choice(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problem_with(f"{index.url}/cpu", "torch", {}) is None
    monkeypatch.setattr(package_index, "_fits", lambda *_: False)
    problem = problem_with(f"{index.url}/cpu", "torch", {})
    assert problem is not None
    assert problem.startswith("has no torch for Python 3.")


def test_tags_are_read_from_the_names_of_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.version_info", (3, 12, 1))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    page = (
        '<a href="torch-2.13.0%2Bcpu-cp313-cp313-manylinux_2_28_x86_64.whl">'
        '<a href="torch-2.13.0%2Bcpu-cp312-cp312-manylinux_2_28_aarch64.whl">'
        '<a href="torch-2.12.0%2Bcpu-cp312-cp312-manylinux_2_28_x86_64.whl#sha256=0a">'
    )
    tags = package_index.WHEEL.findall(page)
    assert [package_index._fits(*found) for found in tags] == [False, False, True]


# the disk


def test_the_disks_of_environment_and_downloads_are_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    check_space(tmp_path / "venv", installed=1000, downloaded=1000)
    huge = 10**15
    with pytest.raises(InstallError, match=r"needs about 2000000\.0 GB on the disk of"):
        check_space(tmp_path / "venv", installed=huge, downloaded=huge)
