"""The installation: environment, build of torch, free space, packages."""

from __future__ import annotations

import platform
import re
import sys
import time
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from app.install import InstallError
from app.install.disk import check_space, full_disk, gigabytes
from app.install.environment import Environment, open_environment
from app.install.package_index import PYPI, problem_with
from app.install.pip import Pip
from app.install.torch_build import CPU_INDEX, Size, TorchBuild, Wishes, choose_build, described
from worker.core.nvidia import cuda_command, has_nvidia_gpu

# measured: every package but torch; with the extra `test`, which brings a browser driver
REST_SIZE = Size(100_000_000, 500_000_000)
EXTRA_SIZE = Size(110_000_000, 450_000_000)
UPDATE_SIZE = Size(20_000_000, 100_000_000)
ENVIRONMENT_BYTES = 30_000_000
RETRY_HINT = "Then run the same command again: what was downloaded is kept."


def main(argv: Sequence[str] | None = None) -> int:
    """Install the project in the current folder; return the exit code."""
    arguments = _parse(argv)
    try:
        _install(arguments)
    except InstallError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nThe installation was interrupted. To go on, run the same command again.")
        return 130
    return 0


def _parse(argv: Sequence[str] | None) -> Namespace:
    parser = ArgumentParser("python -m app.install", description=__doc__, allow_abbrev=False)
    parser.add_argument("--venv", type=Path, default=Path(".venv"), help="folder to install into")
    parser.add_argument("--extra", help="also the requirements of this extra of the project")
    parser.add_argument("--torch-index", help="install the build of torch of this package index")
    parser.add_argument(
        "--cpu-index", default=CPU_INDEX, help=f"index of CPU builds of torch ({CPU_INDEX})"
    )
    parser.add_argument("pip_args", nargs="*", help="options for pip, after --")
    return parser.parse_args(argv)


def _install(arguments: Namespace) -> None:
    began = time.monotonic()
    folder: Path = arguments.venv.absolute()
    check_space(folder, installed=ENVIRONMENT_BYTES, downloaded=0)
    environment = open_environment(folder, _say)
    pip = Pip(environment.python, arguments.pip_args, is_terminal=sys.stdout.isatty())
    build = None
    if environment.torch is None:
        wishes = Wishes(arguments.torch_index, arguments.cpu_index)
        build = choose_build(_torch_requirement(), pip, wishes, system=platform.system())
        _say(described(build))
    else:
        _say(_kept_torch(environment))
    rest = _size_of_rest(environment, arguments.extra)
    _say(f"Other packages: about {gigabytes(rest.downloaded)}")
    parts = [rest] if build is None else [rest, build.size]
    check_space(
        folder,
        installed=sum(part.installed for part in parts),
        downloaded=sum(part.downloaded for part in parts),
    )
    _install_packages(pip, folder, build, arguments.extra)
    _say(f"Installed into {folder} in {time.monotonic() - began:.0f} s")


def _install_packages(pip: Pip, folder: Path, build: TorchBuild | None, extra: str | None) -> None:
    try:
        if build is not None and build.index is not None:
            _say("Installing torch")
            # Its requirements come with the others: an index of torch keeps old versions of them.
            pip.install("--index-url", build.index, "--no-deps", _torch_requirement())
        _say("Installing the other packages" if build is None or build.index else "Installing")
        pip.install("--editable", f".[{extra}]" if extra else ".")
    except InstallError as error:
        raise InstallError(_reason_of_failure(pip, folder) or f"{error} {RETRY_HINT}") from error


def _reason_of_failure(pip: Pip, folder: Path) -> str | None:
    """Why pip failed, if that can be told: a full disk or an index that cannot be reached."""
    if (full := full_disk(folder)) is not None:
        return f"The disk of {full} is full. Free some space. {RETRY_HINT}"
    if "no-index" in pip.config:
        return None
    index = pip.config.get("index-url", PYPI)
    problem = problem_with(index, "pip", pip.config)
    if problem is None or problem.startswith("has no"):
        return None
    return (
        f"The package index {index} {problem}. Check the network and the proxy (HTTPS_PROXY). "
        f"{RETRY_HINT}"
    )


def _torch_requirement() -> str:
    """The project's requirement of torch, such as `torch>=2.6`."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    return next(str(one) for one in project["dependencies"] if re.match(r"torch\b(?!-)", one))


def _kept_torch(environment: Environment) -> str:
    kept = f"torch: {environment.torch} stays"
    if str(environment.torch).endswith("+cpu") and has_nvidia_gpu():
        return (
            f"{kept}, a CPU build that cannot use the NVIDIA GPU of this machine. For the CUDA "
            f"build, run: {cuda_command(environment.python)}"
        )
    return kept


def _size_of_rest(environment: Environment, extra: str | None) -> Size:
    if extra:
        return EXTRA_SIZE
    return REST_SIZE if environment.brushwork is None else UPDATE_SIZE


def _say(sentence: str) -> None:
    print(f"== {sentence}", flush=True)
