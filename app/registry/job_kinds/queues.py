"""The queues that workers take jobs from, without Celery and without the database."""

from __future__ import annotations

from enum import StrEnum


class Queue(StrEnum):
    """TRAIN: runs. RENDER: images. IO: files, uploads, the Hub, and everything else."""

    TRAIN = "train"
    RENDER = "render"
    IO = "io"
