"""Translates full memory and full disks into errors with sentences for people."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from worker.core.memory import is_out_of_memory
from worker.core.training.config import TrainConfig
from worker.core.training.errors import OutOfMemoryError, StorageError

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def translate_failures(config: TrainConfig) -> Iterator[None]:
    """Raise OutOfMemoryError and StorageError in place of the errors of torch and the system."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(_memory_advice(config)) from error
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        message = "The disk is full. Free some space and start the training again."
        raise StorageError(message) from error


def _memory_advice(config: TrainConfig) -> str:
    advice = []
    if not config.gradient_checkpointing:
        advice.append("turn on “Gradient checkpointing”")
    if config.batch_size > 1:
        advice.append(f"use a batch size below {config.batch_size}")
    advice.append("use a lower resolution")
    return f"Out of memory. To train with less, {' or '.join(advice)}."
