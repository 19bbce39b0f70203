"""Chooses the build of torch for this machine, and says which and why."""

from __future__ import annotations

from dataclasses import dataclass

from app.install import InstallError
from app.install.disk import GB, gigabytes
from app.install.package_index import problem_with
from app.install.pip import FoundWheel, Pip
from worker.core.nvidia import CUDA_INDEX, has_nvidia_gpu

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Size:
    """About how many bytes are downloaded, and how many the installed files take."""

    downloaded: int
    installed: int


# measured with torch 2.13 and 2.15 on Linux x86-64
CPU_SIZE = Size(GB // 5, GB)
CUDA_SIZE = Size(3 * GB, 7 * GB)


@dataclass(frozen=True)
class TorchBuild:
    """The build that will be installed; `index` is None if it comes from where pip looks anyway."""

    sentence: str
    size: Size
    index: str | None = None


@dataclass(frozen=True)
class Wishes:
    """Where builds may come from. `index` was named by the user and replaces the choice."""

    index: str | None = None
    cpu_index: str = CPU_INDEX


def choose_build(requirement: str, pip: Pip, wishes: Wishes, *, system: str) -> TorchBuild:
    """The build for this machine: without an NVIDIA GPU the CPU build if it can be reached.

    `requirement` is that of the project, such as `torch>=2.6`; `system` is `platform.system()`.
    Raises InstallError if the index that the user named has no torch.
    """
    if wishes.index:
        return _named_index(wishes.index, pip)
    if system == "Darwin":
        return TorchBuild("the build for macOS", CPU_SIZE)
    found = pip.find(requirement)
    if pip.names_a_source:
        where = "which pip finds with PIP_ARGS"
        return _build_of(found, where) if found else TorchBuild(f"the build {where}", CUDA_SIZE)
    if has_nvidia_gpu():
        return _for_gpu(found)
    if found is not None and found.is_cpu:
        return _build_of(found, "which pip is configured to find")
    problem = problem_with(wishes.cpu_index, "torch", pip.config)
    if problem is None:
        why = "the CPU build, because this machine has no NVIDIA GPU"
        return TorchBuild(f"{why}, from {wishes.cpu_index}", CPU_SIZE, wishes.cpu_index)
    return TorchBuild(f"the build that pip finds, because {wishes.cpu_index} {problem}", CUDA_SIZE)


def _named_index(index: str, pip: Pip) -> TorchBuild:
    problem = problem_with(index, "torch", pip.config)
    if problem is not None:
        raise InstallError(f"{index} {problem}. Check TORCH_INDEX, or leave it out.")
    size = CPU_SIZE if index.rstrip("/").endswith("/cpu") else CUDA_SIZE
    return TorchBuild(f"the build from {index}", size, index)


def _for_gpu(found: FoundWheel | None) -> TorchBuild:
    if found is None or not found.is_cpu:
        return TorchBuild("the CUDA build, for the NVIDIA GPU of this machine", CUDA_SIZE)
    way_out = f"For the CUDA build: make run TORCH_INDEX={CUDA_INDEX}"
    source = "which pip is configured to find and which cannot use the NVIDIA GPU of this machine"
    return _build_of(found, f"{source}. {way_out}")


def _build_of(found: FoundWheel, source: str) -> TorchBuild:
    size = CPU_SIZE if found.is_cpu else CUDA_SIZE
    if found.size is not None:
        size = Size(found.size, size.installed)
    build = " (CPU build)" if found.is_cpu else ""
    return TorchBuild(f"{found.version}{build}, {source}", size)


def described(build: TorchBuild) -> str:
    """The line that is printed before the download begins."""
    return f"torch: {build.sentence}; about {gigabytes(build.size.downloaded)}"
