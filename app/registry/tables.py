"""Every table of the registry, imported in one place so that the metadata is complete."""

from app.registry.access.models import LoginSession
from app.registry.adapters.models import (
    Adapter,
    AdapterAlias,
    AdapterFile,
    AdapterSearch,
    AdapterTag,
    AdapterVersion,
)
from app.registry.base_models.models import BaseModel, BasePrecision, BaseSpeed
from app.registry.caption_models.models import CaptionModel
from app.registry.datasets.auto_caption.models import CaptionProposal
from app.registry.datasets.models import (
    CaptionRevision,
    Dataset,
    DatasetEdit,
    DatasetVersion,
    Image,
    ImageCaption,
    ImageMeasure,
)
from app.registry.deletion.models import ErasedHash
from app.registry.integrity.models import BlobCheck
from app.registry.jobs.models import Event, IoJob
from app.registry.jobs.presence import WorkerPresence
from app.registry.ownership.models import Registry
from app.registry.renders.grids.models import Grid, GridCell
from app.registry.renders.models import Render, RenderAdapter, RenderImage, RenderSource
from app.registry.renders.recipes.models import Recipe
from app.registry.runs.models import (
    Checkpoint,
    MetricChunk,
    OwnPreset,
    Run,
    RunDataset,
    Sample,
)
from app.registry.thumbnails.models import Thumbnail

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
    "BasePrecision",
    "BaseSpeed",
    "BlobCheck",
    "CaptionModel",
    "CaptionProposal",
    "CaptionRevision",
    "Checkpoint",
    "Dataset",
    "DatasetEdit",
    "DatasetVersion",
    "ErasedHash",
    "Event",
    "Grid",
    "GridCell",
    "Image",
    "ImageCaption",
    "ImageMeasure",
    "IoJob",
    "LoginSession",
    "MetricChunk",
    "OwnPreset",
    "Recipe",
    "Registry",
    "Render",
    "RenderAdapter",
    "RenderImage",
    "RenderSource",
    "Run",
    "RunDataset",
    "Sample",
    "Thumbnail",
    "WorkerPresence",
]
