"""What every worker imports, except for torch: loaded once by the first fork server."""

import sqlalchemy.dialects.sqlite  # noqa: F401
from celery.apps import worker
from celery.bin import celery  # noqa: F401
from celery.bin import worker as worker_command  # noqa: F401
from celery.concurrency import thread  # noqa: F401
from celery.worker import consumer  # noqa: F401
from kombu.transport import redis  # noqa: F401

import worker.runtime.launch
import worker.runtime.process  # noqa: F401
