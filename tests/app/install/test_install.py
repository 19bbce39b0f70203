"""`python -m app.install` with a real pip: which torch it installs, and why if it cannot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.app.install.conftest import CLOSED, ROOT, Index, Machine
from tests.disks import mounted_disk


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().splitlines()[-1]


def test_without_a_gpu_the_cpu_build_is_installed_and_then_kept(
    machine: Machine, index: Index
) -> None:
    done = machine.install("--cpu-index", f"{index.url}/cpu")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == (
        "== torch: the CPU build, because this machine has no NVIDIA GPU, from "
        f"{index.url}/cpu; about 0.2 GB"
    )
    assert lines[1].startswith("== Other packages: about 0.1 GB")
    assert lines[-1].startswith(f"== Installed into {machine.venv}")
    assert (machine.torch(), done.stderr) == ("cpu", "")

    machine.add_gpu()
    again = machine.install("--cpu-index", f"{index.url}/cpu")
    assert again.returncode == 0, again.stderr
    assert "torch: 2.9.0+cpu stays, a CPU build that cannot use the NVIDIA GPU" in again.stdout
    assert f"{machine.venv}/bin/python -m pip uninstall -y torch && " in again.stdout
    assert machine.torch() == "cpu"


def test_with_a_gpu_the_cuda_build_is_installed(machine: Machine, index: Index) -> None:
    machine.add_gpu()
    done = machine.install("--cpu-index", f"{index.url}/cpu")
    assert done.returncode == 0, done.stderr
    assert "torch: the CUDA build, for the NVIDIA GPU of this machine; about 3.0 GB" in done.stdout
    assert machine.torch() == "cuda"
    assert not [path for path in index.paths if path.startswith("/cpu")]


def test_without_a_network_one_sentence_says_so(machine: Machine) -> None:
    machine.environment["PIP_INDEX_URL"] = CLOSED
    done = machine.install("--cpu-index", CLOSED)
    assert done.returncode == 1
    assert last_line(done) == (
        f"The package index {CLOSED} could not be reached (Connection refused). Check the network "
        "and the proxy (HTTPS_PROXY). Then run the same command again: what was downloaded is kept."
    )
    assert "Traceback" not in done.stderr


def test_make_makes_the_environment_and_an_interrupted_installation_goes_on(
    machine: Machine, index: Index
) -> None:
    shutil.rmtree(machine.venv)
    machine.environment["PATH"] += f":{os.environ['PATH']}"
    make = ["make", "-s", "-f", str(ROOT / "Makefile"), f"PYTHON={sys.executable}"]
    command = [*make, ".venv/.installed", f"TORCH_INDEX={index.url}/slow"]
    index.waits.clear()
    index.may_send.clear()
    with subprocess.Popen(
        command,
        cwd=machine.folder,
        env=machine.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert index.waits.wait(300)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C on a terminal
        output = process.communicate(timeout=300)[0]
    index.may_send.set()
    assert process.returncode != 0
    assert "The installation was interrupted. To go on, run the same command again." in output
    assert "Traceback" not in output
    assert not (machine.venv / ".installed").exists()

    done = subprocess.run(
        command, cwd=machine.folder, env=machine.environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert machine.torch() == "slow"
    assert (machine.venv / ".installed").exists()


def test_an_old_python_is_named(machine: Machine) -> None:
    program = (
        "import runpy, sys; sys.version_info = (3, 10, 4, 'final', 0); "
        "runpy.run_module('app.install', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"Brushwork needs Python 3.11 or newer, and {sys.executable} is 3.10."
    )

    old = Path(machine.environment["PATH"]) / "python3.10"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    shutil.rmtree(machine.venv)
    made = subprocess.run(
        ["make", "-s", "-f", str(ROOT / "Makefile"), "PYTHON=python3.10", "run"],
        cwd=machine.folder,
        env=machine.environment | {"PATH": f"{old.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 2
    assert "Brushwork needs Python 3.11 or newer, and 'python3.10' is not that." in made.stdout


def test_an_environment_of_an_old_python_is_named(machine: Machine) -> None:
    python = machine.venv / "bin" / "python"
    python.unlink()
    found = {"python": [3, 10], "has_pip": True, "torch": None, "brushwork": None}
    python.write_text(f"#!/bin/sh\necho '{json.dumps(found)}'\n")
    python.chmod(0o755)
    done = machine.install()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{machine.venv} was made with Python 3.10, and Brushwork needs")


def test_a_read_only_folder_is_named(machine: Machine, tmp_path: Path) -> None:
    with mounted_disk(tmp_path / "clone-ro", "ro,size=64m") as folder:
        done = machine.install("--venv", str(folder / ".venv"))
    assert done.returncode == 1
    assert last_line(done) == (
        f"The folder {folder}/.venv cannot be written (Read-only file system). Clone Brushwork "
        "into a folder of your own, or install it elsewhere with VENV=FOLDER."
    )


def test_too_little_disk_is_said_before_the_download(
    machine: Machine, index: Index, tmp_path: Path
) -> None:
    with mounted_disk(tmp_path / "small", "size=64m") as folder:
        shutil.copytree(machine.venv, folder / ".venv", symlinks=True)
        done = machine.install("--cpu-index", f"{index.url}/cpu", "--venv", str(folder / ".venv"))
    assert done.returncode == 1
    assert last_line(done).startswith(
        f"The installation needs about 1.5 GB on the disk of {folder}/.venv, and "
    )
    assert not [path for path in index.paths if "/files/" in path]


def test_a_disk_too_small_for_an_environment_is_named(machine: Machine, tmp_path: Path) -> None:
    with mounted_disk(tmp_path / "tiny", "size=1m") as folder:
        done = machine.install("--venv", str(folder / ".venv"))
    assert done.returncode == 1
    assert last_line(done).startswith("The installation needs about 30 MB on the disk of ")


@pytest.mark.parametrize("quiet", [True, False])
def test_progress_of_pip_is_shown_on_a_terminal_alone(quiet: bool, tmp_path: Path) -> None:
    from app.install.pip import Pip

    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n')
    python.chmod(0o755)
    Pip(python, ["--no-deps"], is_terminal=not quiet).install("torch")
    arguments = (tmp_path / "arguments").read_text().split()
    assert ("--quiet" in arguments) is quiet
    assert arguments[-2:] == ["torch", "--no-deps"]
