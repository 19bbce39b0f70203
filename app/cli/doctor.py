"""`brushwork doctor`: shows the effective settings and checks that everything works."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from app.cli.database import open_database
from app.registry.blobs import sweep, trash
from app.registry.blobs.report import bad_files, summary
from app.registry.config import Settings
from app.registry.db import Database
from app.registry.jobs.presence import present_workers
from app.registry.migrate import head_revision, require_current
from app.registry.paths import python_path
from app.registry.storage import open_store
from app.registry.wording import size_text
from app.supervisor.broker import servers

MASK = "•••"
PASSWORD_IN_URL = re.compile(r"(?<=://)([^:/@]*):[^@/]*(?=@)")
SECRET_IN_QUERY = re.compile(r"((?:key|secret|token|password|signature)[^=&]*=)[^&]*", re.I)
CONNECT_SECONDS = 4
TORCH_SECONDS = 120

# in a child process, because processes of `app` do not import torch
DEVICE_PROGRAM = """
import sys
from worker.core.device import choose_device
from worker.runtime.device import describe_device, unused_gpu
import torch
device = choose_device(sys.argv[1])
torch.zeros(1, device=device)
described = describe_device(device)
print(f"{described}, torch {torch.__version__}")
unused = unused_gpu(described) if sys.argv[1] == "auto" else None
if unused:
    print(unused.problem)
    print(unused.remedy)
"""
BASE_PROGRAM = """
import sys
from worker.core.bases.family import BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.starter import PATH
from worker.core.starter.checksums import find_damage
try:
    info = inspect_base(PATH)
except BaseModelError as error:
    sys.exit(str(error))
if damage := find_damage():
    sys.exit(damage)
total = sum(info.parameters.values())
print(f"starter ({info.family}, {info.resolution} px, {total:,} parameters)")
"""


class CheckError(Exception):
    """A check failed; the message gives the reason and what to do."""


@dataclass(frozen=True)
class Finding:
    """Result of a check."""

    name: str
    fine: bool
    sentence: str


def run(arguments: Namespace, settings: Settings) -> int:
    """Print the settings and the results of all checks; return 1 if a check fails."""
    if arguments.queue:
        return worker_is_here(settings, arguments.queue)
    print("Settings")
    for name, value in effective_settings(settings).items():
        print(f"  BRUSHWORK_{name.upper():<16} {value}")
    print("Checks")
    findings = [run_check(name, check, settings) for name, check in CHECKS.items()]
    for finding in findings:
        sentence = finding.sentence.replace("\n", f"\n{'':20}")
        print(f"  {'ok  ' if finding.fine else 'FAIL'} {finding.name:<12} {sentence}")
    return 0 if all(finding.fine for finding in findings) else 1


def effective_settings(settings: Settings) -> dict[str, str]:
    """The value of each setting, with secrets masked; "(unset)" if empty."""
    return {
        name: mask_secrets(str(value)) if value not in (None, "") else "(unset)"
        for name, value in settings.model_dump().items()
    }


def mask_secrets(value: str) -> str:
    """The value with passwords and keys in URLs masked."""
    return SECRET_IN_QUERY.sub(rf"\1{MASK}", PASSWORD_IN_URL.sub(rf"\1:{MASK}", value))


def run_check(name: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    """Run a check; any error becomes a failed result."""
    try:
        return Finding(name, True, check(settings))
    except Exception as error:  # continue with the next check
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        return Finding(name, False, mask_secrets(first_line))


def check_database(settings: Settings) -> str:
    """Check that the database can be reached and has the tables of this version."""
    name = mask_secrets(sa.make_url(settings.sqlalchemy_url).render_as_string())
    if not _has_database(settings):
        return f"{name} will be created at the first start"
    with _current_database(settings):
        return f"{name}, revision {head_revision()}"


def _has_database(settings: Settings) -> bool:
    """False before the first start, when the SQLite file is not there yet."""
    url = sa.make_url(settings.sqlalchemy_url)
    is_file = url.get_backend_name() == "sqlite"
    return not is_file or (url.database is not None and Path(url.database).exists())


@contextmanager
def _current_database(settings: Settings) -> Iterator[Database]:
    """The database, closed at the end. Raises UnusableDatabase unless it is of this version."""
    with open_database(settings) as database:
        require_current(database.engine)
        yield database


def check_storage(settings: Settings) -> str:
    """Check that blobs can be written."""
    if not settings.storage_url and not settings.data_dir.exists():
        return f"{settings.data_dir} will be created at the first start"
    store = open_store(settings.storage_url, settings.data_dir)
    store.check()
    free = store.free_bytes()
    where = mask_secrets(settings.storage_url or str(settings.data_dir))
    return where if free is None else f"{where}, {size_text(free)} free"


def check_owner(settings: Settings) -> str:
    """Check that the stored files belong to this database alone."""
    has_storage = settings.storage_url or settings.data_dir.exists()
    if not (_has_database(settings) and has_storage):
        return "no files yet"
    with _current_database(settings) as database:
        store = open_store(settings.storage_url, settings.data_dir)
        if problem := sweep.warning(database, store):
            raise CheckError(
                f"{problem} Sweeps only report. If this is the right database, run "
                f"`{sweep.ADOPT_COMMAND}`."
            )
        in_trash = trash.amount(store)
    return f"the files are this database's; {in_trash.text} in the trash"


def check_files(settings: Settings) -> str:
    """Check that no stored file was found damaged or missing; reads the results, not the files."""
    if not _has_database(settings):
        return "none yet"
    with _current_database(settings) as database, database.read() as session:
        bad = bad_files(session)
    if bad:
        raise CheckError(f"{summary(bad)}. {bad[0].sentence} `brushwork verify` lists them.")
    return "none is known to be damaged or missing; `brushwork verify` reads them all"


def check_broker(settings: Settings) -> str:
    """Check that the configured broker answers, or that `serve` can start one."""
    if settings.broker_url and settings.broker_url.startswith("redis"):
        return f"{mask_secrets(settings.broker_url)}, server {_redis_version(settings.broker_url)}"
    if settings.broker_url:
        return f"{mask_secrets(settings.broker_url)} (files, which are slower)"
    for server in servers():
        version = subprocess.run(
            [str(server), "--version"], capture_output=True, text=True, timeout=CONNECT_SECONDS
        )
        if version.returncode == 0:
            return f"`serve` starts {server}"
    return "no Valkey or Redis found, so `serve` wakes workers through files, which is slower"


def _redis_version(url: str) -> str:
    from redis import Redis  # only where Redis is the broker

    url = url.replace("redis+socket://", "unix://", 1)
    with Redis.from_url(url, socket_connect_timeout=CONNECT_SECONDS) as client:
        return str(client.info("server")["redis_version"])


def check_device(settings: Settings) -> str:
    """Check that the workers' device can hold a tensor."""
    return _run_python(DEVICE_PROGRAM, settings.device)


def check_base_model(settings: Settings) -> str:
    """Check that the embedded base model is complete."""
    return _run_python(BASE_PROGRAM)


def _run_python(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", program, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path()},
        timeout=TORCH_SECONDS,
    )
    if done.returncode:
        raise CheckError(done.stderr.strip().splitlines()[-1])
    return done.stdout.strip()


def worker_is_here(settings: Settings, queue: str) -> int:
    """Return 0 if a worker of `queue` on this machine was seen recently (for container probes).

    Raises UnusableDatabase.
    """
    with _current_database(settings) as database, database.read() as session:
        workers = present_workers(session, queue=queue)
    here = [worker for worker in workers if worker.host == socket.gethostname()]
    if not here:
        print(f"No {queue} worker on this machine was seen recently.", file=sys.stderr)
        return 1
    print(f"{queue} worker, process {here[0].pid}, {here[0].device or 'warming up'}")
    return 0


CHECKS: dict[str, Callable[[Settings], str]] = {
    "broker": check_broker,
    "database": check_database,
    "storage": check_storage,
    "owner": check_owner,
    "files": check_files,
    "device": check_device,
    "base model": check_base_model,
}
