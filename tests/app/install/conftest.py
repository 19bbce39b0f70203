"""A package index and proxy of our own, a small project, and an environment with only pip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.app.install.backend import write_wheel
from worker.core import nvidia

ROOT = Path(__file__).parents[3]
CLOSED = "http://127.0.0.1:9"  # a port on which nothing listens
PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "brushwork"
version = "0.0"
dependencies = ["torch>=2.6"]
"""


@dataclass
class Index:
    """A server of package indexes at `/cpu`, `/cuda` and `/slow`, which is also a proxy to itself.

    A file below `/slow` ends in the middle until `may_send` is set.
    """

    folder: Path
    url: str = ""
    paths: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    may_send: threading.Event = field(default_factory=threading.Event)
    waits: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a GET request; a proxy's request has a whole URL in place of a path."""
        path = unquote(urlsplit(request.path).path)
        self.paths.append(path)
        self.hosts.append(urlsplit(request.path).hostname or "")
        build, _, rest = path.strip("/").partition("/")
        place = self.folder / build
        if rest == "torch" and place.is_dir():
            links = "".join(
                f'<a href="../files/{name.replace("+", "%2B")}">{name}</a>'
                for name in sorted(file.name for file in place.iterdir())
            )
            self._send(request, f"<!DOCTYPE html><html><body>{links}</body></html>".encode())
        elif rest.startswith("files/") and (place / Path(rest).name).is_file():
            self._send(request, (place / Path(rest).name).read_bytes(), slowly=build == "slow")
        else:
            request.send_error(404)

    def _send(self, request: BaseHTTPRequestHandler, body: bytes, *, slowly: bool = False) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/html" if body[:1] == b"<" else "application/zip")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        half = len(body) // 2
        request.wfile.write(body[:half])
        if slowly and not self.may_send.is_set():
            self.waits.set()
            self.may_send.wait(60)
        request.wfile.write(body[half:])


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """The running index; its builds of torch say which one they are."""
    folder = tmp_path_factory.mktemp("index")
    for build, version in (("cpu", "2.9.0+cpu"), ("cuda", "2.9.0"), ("slow", "2.9.0+cpu")):
        (folder / build).mkdir()
        write_wheel(folder / build, "torch", version, {"torch.py": f"build = {build!r}\n"})
    found = Index(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.answer(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    found.may_send.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def with_pip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but this pip, which tests copy: `ensurepip` takes seconds."""
    folder = tmp_path_factory.mktemp("with_pip") / "venv"
    venv.EnvBuilder(symlinks=True).create(folder)
    place = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", "venv", place))
    package = Path(str(distribution("pip").locate_file("pip")))
    for part in (package, *package.parent.glob("pip-*.dist-info")):
        shutil.copytree(part, packages / part.name)
    return folder


@dataclass
class Machine:
    """A machine with a clone of the small project, as the installation finds it."""

    folder: Path
    environment: dict[str, str]

    @property
    def venv(self) -> Path:
        """The environment of the clone."""
        return self.folder / ".venv"

    def add_gpu(self, answer: str = "GPU 0: NVIDIA H100 (UUID: GPU-1)", code: int = 0) -> None:
        """Put an `nvidia-smi` on PATH that answers this."""
        program = Path(self.environment["PATH"]) / "nvidia-smi"
        program.write_text(f"#!/bin/sh\necho '{answer}'\nexit {code}\n")
        program.chmod(0o755)

    def command(self, *arguments: str) -> list[str]:
        """The installation, as `make` runs it."""
        return [sys.executable, "-m", "app.install", *arguments]

    def install(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the installation to its end."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def torch(self) -> str:
        """Which build of torch the environment has."""
        program = "import torch; print(torch.build)"
        python = str(self.venv / "bin" / "python")
        return subprocess.check_output([python, "-I", "-c", program], text=True).strip()


@pytest.fixture
def machine(index: Index, with_pip: Path, tmp_path: Path) -> Machine:
    """A machine without a GPU whose pip looks into the index of CUDA builds, as PyPI has them."""
    if nvidia.DRIVER.exists():
        pytest.skip("this machine has an NVIDIA driver")
    index.paths.clear()
    index.hosts.clear()
    folder, programs = tmp_path / "clone", tmp_path / "bin"
    programs.mkdir()
    folder.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    shutil.copy(Path(__file__).with_name("backend.py"), folder)
    shutil.copytree(with_pip, folder / ".venv", symlinks=True, copy_function=os.link)
    kept = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "LC_ALL": "C.UTF-8"}
    options = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": f"{index.url}/cuda",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
    }
    return Machine(folder, {"PATH": str(programs), "PYTHONPATH": str(ROOT), **kept, **options})
