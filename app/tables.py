"""Every table of the registry, imported in one place so that the metadata is complete."""

from app.adapters.models import (
    Adapter,
    AdapterAlias,
    AdapterFile,
    AdapterSearch,
    AdapterTag,
    AdapterVersion,
)
from app.base_models.models import BaseModel, BaseSpeed
from app.datasets.models import CaptionRevision, Dataset, DatasetVersion, Image
from app.jobs.models import Event, IoJob
from app.jobs.presence import WorkerPresence
from app.playground.models import Render, RenderAdapter, RenderImage
from app.runs.models import Checkpoint, MetricChunk, Run, Sample

JOB_TABLES = (Run, Render, IoJob)

__all__ = [
    "JOB_TABLES",
    "Adapter",
    "AdapterAlias",
    "AdapterFile",
    "AdapterSearch",
    "AdapterTag",
    "AdapterVersion",
    "BaseModel",
    "BaseSpeed",
    "CaptionRevision",
    "Checkpoint",
    "Dataset",
    "DatasetVersion",
    "Event",
    "Image",
    "IoJob",
    "MetricChunk",
    "Render",
    "RenderAdapter",
    "RenderImage",
    "Run",
    "Sample",
    "WorkerPresence",
]
