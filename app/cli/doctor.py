"""`brushwork doctor`: the effective settings, and whether everything they name works."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from app.registry.config import Settings
from app.registry.db import Database, make_engine
from app.registry.jobs.presence import present_workers
from app.registry.migrate import current_revision, head_revision
from app.registry.storage import open_store
from app.registry.wording import size_text

MASK = "•••"
PASSWORD_IN_URL = re.compile(r"(?<=://)([^:/@]*):[^@/]*(?=@)")
SECRET_IN_QUERY = re.compile(r"((?:key|secret|token|password|signature)[^=&]*=)[^&]*", re.I)
CONNECT_SECONDS = 4
TORCH_SECONDS = 120

# torch stays out of this process, as out of every process of `app`
DEVICE_PROGRAM = """
import sys
from worker.core.device import choose_device
from worker.runtime.device import describe_device
import torch
device = choose_device(sys.argv[1])
torch.zeros(1, device=device)
print(f"{describe_device(device)}, torch {torch.__version__}")
"""
BASE_PROGRAM = """
from worker.core.bases.inspect import inspect_base
from worker.core.starter import PATH
info = inspect_base(PATH)
total = sum(info.parameters.values())
print(f"starter ({info.family}, {info.resolution} px, {total:,} parameters)")
"""


class CheckError(Exception):
    """Something does not work; the message says what, and what to do."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    name: str
    fine: bool
    sentence: str


def run(arguments: Namespace, settings: Settings) -> int:
    """Print settings and findings; 0 when all is fine, 1 otherwise."""
    if arguments.queue:
        return worker_is_here(settings, arguments.queue)
    print("Settings")
    for name, value in effective_settings(settings).items():
        print(f"  BRUSHWORK_{name.upper():<16} {value}")
    print("Checks")
    findings = [examine(name, check, settings) for name, check in CHECKS.items()]
    for finding in findings:
        print(f"  {'ok  ' if finding.fine else 'FAIL'} {finding.name:<12} {finding.sentence}")
    return 0 if all(finding.fine for finding in findings) else 1


def effective_settings(settings: Settings) -> dict[str, str]:
    """Each setting as it holds, with nothing secret in it; "(unset)" for none."""
    return {
        name: masked(str(value)) if value not in (None, "") else "(unset)"
        for name, value in settings.model_dump().items()
    }


def masked(value: str) -> str:
    """The value with passwords and keys of a URL covered."""
    return SECRET_IN_QUERY.sub(rf"\1{MASK}", PASSWORD_IN_URL.sub(rf"\1:{MASK}", value))


def examine(name: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    """What the check finds; any error is a finding, not a crash."""
    try:
        return Finding(name, True, check(settings))
    except Exception as error:  # a doctor must go on to the next organ
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        return Finding(name, False, masked(first_line))


def check_database(settings: Settings) -> str:
    """The database can be reached and has this version's tables."""
    url = sa.make_url(settings.sqlalchemy_url)
    name = masked(url.render_as_string())
    if url.get_backend_name() == "sqlite" and not _file_exists(url):
        return f"{name} will be made at the first start"
    engine = make_engine(settings.sqlalchemy_url)
    try:
        found, head = current_revision(engine), head_revision()
    finally:
        engine.dispose()
    if found != head:
        raise CheckError(
            f"{name} has revision {found or 'none'}, this version needs {head}. "
            "Run `brushwork migrate`."
        )
    return f"{name}, revision {head}"


def _file_exists(url: sa.URL) -> bool:

    return url.database is not None and Path(url.database).exists()


def check_storage(settings: Settings) -> str:
    """Blobs can be written."""
    if not settings.storage_url and not settings.data_dir.exists():
        return f"{settings.data_dir} will be made at the first start"
    store = open_store(settings.storage_url, settings.data_dir)
    store.check()
    free = store.free_bytes()
    where = masked(settings.storage_url or str(settings.data_dir))
    return where if free is None else f"{where}, {size_text(free)} free"


def check_broker(settings: Settings) -> str:
    """The given broker answers, or there is one that `serve` can start."""
    if settings.broker_url and settings.broker_url.startswith("redis"):
        return f"{masked(settings.broker_url)}, server {_redis_version(settings.broker_url)}"
    if settings.broker_url:
        return f"{masked(settings.broker_url)} (files: a little slower)"
    from app.supervisor.broker import servers

    for server in servers():
        version = subprocess.run(
            [str(server), "--version"], capture_output=True, text=True, timeout=CONNECT_SECONDS
        )
        if version.returncode == 0:
            return f"`serve` starts {server}"
    return "`serve` wakes workers through files, a little slower: no Valkey or Redis runs here"


def _redis_version(url: str) -> str:
    from redis import Redis

    url = url.replace("redis+socket://", "unix://", 1)
    with Redis.from_url(url, socket_connect_timeout=CONNECT_SECONDS) as client:
        return str(client.info("server")["redis_version"])


def check_device(settings: Settings) -> str:
    """The device of the workers can hold a tensor."""
    return _run_python(DEVICE_PROGRAM, settings.device)


def check_base_model(settings: Settings) -> str:
    """The embedded base model is whole."""
    return _run_python(BASE_PROGRAM)


def _run_python(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=TORCH_SECONDS,
    )
    if done.returncode:
        raise CheckError(done.stderr.strip().splitlines()[-1])
    return done.stdout.strip()


def worker_is_here(settings: Settings, queue: str) -> int:
    """0 when a worker of `queue` on this machine was seen a moment ago: for container probes."""
    database = Database(make_engine(settings.sqlalchemy_url))
    try:
        with database.read() as session:
            workers = present_workers(session, queue=queue)
    finally:
        database.dispose()
    here = [worker for worker in workers if worker.host == socket.gethostname()]
    if not here:
        print(f"No {queue} worker of this machine was seen lately.", file=sys.stderr)
        return 1
    print(f"{queue} worker, process {here[0].pid}, {here[0].device or 'warming up'}")
    return 0


CHECKS: dict[str, Callable[[Settings], str]] = {
    "broker": check_broker,
    "database": check_database,
    "storage": check_storage,
    "device": check_device,
    "base model": check_base_model,
}
