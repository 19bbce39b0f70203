"""The environment that processes for computing start with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli import doctor
from app.registry.config import SECRETS, Settings
from worker.runtime import device
from worker.runtime.device import child_environment, unused_gpu


def test_a_process_that_computes_is_told_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, "hush")
    monkeypatch.setenv("BRUSHWORK_DEVICE", "cpu")
    program = "import os; print('hush' in os.environ.values(), os.environ['BRUSHWORK_DEVICE'])"
    told = subprocess.check_output(
        [sys.executable, "-c", program], env=child_environment(1), text=True
    )
    assert told.split() == ["False", "cpu"]


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An `nvidia-smi` that lists a GPU."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA T4 (UUID: GPU-1)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    device._has_nvidia_gpu.cache_clear()
    yield
    device._has_nvidia_gpu.cache_clear()


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("torch", "why"),
    [("2.13.0+cpu", "torch 2.13.0+cpu is a CPU build"), ("2.13.0", "torch 2.13.0 cannot use it")],
)
def test_a_gpu_beside_a_build_that_cannot_use_it_is_named_with_the_way_out(
    torch: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "version", lambda _name: torch)
    assert unused_gpu("") is None  # not known yet
    assert unused_gpu("NVIDIA T4") is None
    found = unused_gpu("CPU, 2 threads")
    assert found is not None
    assert why in found.problem
    assert found.remedy.startswith(f"{sys.executable} -m pip uninstall -y torch && ")


@pytest.mark.usefixtures("gpu")
def test_doctor_names_it_too_unless_the_cpu_was_chosen() -> None:
    from worker.core.device import has_device

    if has_device("cuda"):
        pytest.skip("this torch uses the GPU of this machine")
    assert "NVIDIA GPU that is not used" in doctor.check_device(Settings(device="auto"))
    assert "NVIDIA" not in doctor.check_device(Settings(device="cpu"))
