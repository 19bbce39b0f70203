"""The libraries of every worker, except torch: loaded once by the first fork server."""

import sys
from types import ModuleType

import sqlalchemy.dialects.sqlite  # noqa: F401

# Celery's command line imports an interactive shell for a subcommand that no worker runs: 7 MB
_no_shell = ModuleType("click_repl")
_no_shell.register_repl = lambda _: None  # type: ignore[attr-defined]
sys.modules.setdefault("click_repl", _no_shell)

from celery.apps import worker  # noqa: E402
from celery.bin import celery  # noqa: E402, F401
from celery.bin import worker as worker_command  # noqa: E402, F401
from celery.concurrency import thread  # noqa: E402, F401
from celery.worker import consumer  # noqa: E402, F401
from kombu.transport import redis  # noqa: E402, F401

import worker.runtime.launch  # noqa: E402
import worker.runtime.process  # noqa: E402, F401
