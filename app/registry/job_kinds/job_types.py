"""The properties of each kind of io job: its models, its time limit, whether it is long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from app.registry.job_kinds import caption_kinds, kinds
from app.registry.job_kinds.kinds import DamagedJob, JobArgs, JobKind, JobResult
from app.registry.job_kinds.states import Queue
from app.registry.validation import named_reasons, reason

ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True)
class TimeLimit:
    """The time that a job has until it ends or finishes its next part, such as a module.

    `seconds`, and what its input takes at `bytes_per_second`, where reading and writing that is the
    work. Waiting for the storage or the database does not count.
    """

    seconds: float
    bytes_per_second: float | None = None

    def of(self, size_bytes: int) -> float:
        """The limit in seconds for an input of this size."""
        rate = self.bytes_per_second
        return self.seconds + (size_bytes / rate if rate else 0.0)


@dataclass(frozen=True)
class JobType:
    """A kind of job.

    `is_long`: it can take minutes or hours, so a worker that stops returns it to the queue, and one
    thread of a worker is kept free of such jobs.

    `limit`: it runs in a process of its own, which is ended when this has passed. Every kind has
    one but transfers to and from the Hub, which have a process and limits for each request, sweeps,
    which only list and move files, and dry runs, which have a process of their own.

    `keeps_parts`: what is done of it when it ends too early stays.

    `queue`: whose workers carry it out.
    """

    args: type[JobArgs]
    result: type[JobResult]
    is_long: bool = False
    limit: TimeLimit | None = None
    keeps_parts: bool = False
    queue: Queue = Queue.IO

    @property
    def kind(self) -> JobKind:
        """The kind, as stored in the rows."""
        return self.args.kind


MEGABYTE = 1_000_000
# The figures are many times what was measured on one core of 2 GHz, for slow and busy machines.
INSPECTION_LIMIT = TimeLimit(60)  # it reads some headers
FILE_LIMIT = TimeLimit(300, MEGABYTE)  # the size of the adapters that are read
BASE_LIMIT = TimeLimit(600, 2 * MEGABYTE)  # the size of the base models as well
PART_LIMIT = TimeLimit(300)  # one image, or one piece of a file
FOLDER_LIMIT = TimeLimit(600)  # an adapter, to a folder that may be on a network
EVALUATION_LIMIT = TimeLimit(600)  # one image through the autoencoder, or all of a checkpoint seen
CAPTION_LIMIT = TimeLimit(600)  # one image, after a model of gigabytes was read
JOB_TYPES: Mapping[str, JobType] = {
    job_type.kind: job_type
    for job_type in (
        JobType(kinds.InspectBaseArgs, JobResult, limit=INSPECTION_LIMIT),
        JobType(kinds.DownloadBaseArgs, kinds.ByteProgress, is_long=True),
        JobType(kinds.ExportAdapterArgs, kinds.ExportAdapterResult, limit=FILE_LIMIT),
        JobType(kinds.KeepInFolderArgs, kinds.KeepInFolderResult, limit=FOLDER_LIMIT),
        JobType(kinds.ImportAdapterArgs, kinds.ImportAdapterResult, limit=FILE_LIMIT),
        JobType(kinds.FetchHubAdapterArgs, kinds.FetchHubAdapterResult, is_long=True),
        JobType(kinds.PublishAdapterArgs, kinds.PublishAdapterResult, is_long=True),
        JobType(kinds.MergeAdaptersArgs, kinds.NewVersionResult, is_long=True, limit=FILE_LIMIT),
        JobType(kinds.ResizeAdapterArgs, kinds.NewVersionResult, is_long=True, limit=FILE_LIMIT),
        JobType(kinds.ScaleAdapterArgs, kinds.NewVersionResult, is_long=True, limit=FILE_LIMIT),
        JobType(kinds.FuseAdapterArgs, kinds.FuseAdapterResult, is_long=True, limit=BASE_LIMIT),
        JobType(kinds.ExtractAdapterArgs, kinds.NewVersionResult, is_long=True, limit=BASE_LIMIT),
        JobType(kinds.MeasureOverlapArgs, kinds.MeasureOverlapResult, limit=FILE_LIMIT),
        JobType(kinds.DryRunArgs, kinds.DryRunResult, queue=Queue.TRAIN),
        JobType(
            kinds.EvaluateRunArgs, kinds.EvaluationResult, is_long=True, limit=EVALUATION_LIMIT
        ),
        JobType(
            kinds.EvaluateWeightsArgs, kinds.EvaluationResult, is_long=True, limit=EVALUATION_LIMIT
        ),
        JobType(kinds.AdvanceSweepArgs, kinds.StepProgress, is_long=True, limit=EVALUATION_LIMIT),
        JobType(kinds.SweepArgs, kinds.SweepResult, is_long=True),
        # these give their thread to any other job, but for the measuring of one image
        JobType(kinds.MakeThumbnailsArgs, kinds.StepProgress, limit=PART_LIMIT),
        JobType(kinds.MeasureLooksArgs, kinds.StepProgress, limit=PART_LIMIT),
        JobType(kinds.MeasureImageArgs, kinds.MeasureImageResult, limit=PART_LIMIT),
        JobType(kinds.CheckFilesArgs, kinds.CheckFilesResult, limit=PART_LIMIT),
        JobType(kinds.DeleteDraftsArgs, kinds.DeleteDraftsResult, limit=PART_LIMIT),
        JobType(
            caption_kinds.CaptionImagesArgs,
            caption_kinds.CaptionImagesResult,
            is_long=True,
            limit=CAPTION_LIMIT,
            keeps_parts=True,
        ),
        JobType(
            caption_kinds.PreviewCaptionArgs,
            caption_kinds.PreviewCaptionResult,
            limit=CAPTION_LIMIT,
        ),
        JobType(caption_kinds.DownloadCaptionModelArgs, kinds.ByteProgress, is_long=True),
        JobType(caption_kinds.CheckCaptionModelArgs, JobResult, limit=INSPECTION_LIMIT),
    )
}
LONG_KINDS = tuple(kind for kind, job_type in JOB_TYPES.items() if job_type.is_long)
TRAIN_KINDS = tuple(kind for kind, one in JOB_TYPES.items() if one.queue is Queue.TRAIN)


def read_arguments(kind: str, args: Mapping[str, Any]) -> JobArgs:
    """Return the arguments of a job from its row. Raises DamagedJob."""
    return _validate_json(
        _job_type(kind).args, args, "The stored arguments of this job are damaged."
    )


def read_result(kind: str, result: Mapping[str, Any]) -> JobResult:
    """Return the results of a job, or its progress, from its row. Raises DamagedJob."""
    return _validate_json(
        _job_type(kind).result, result, "The stored result of this job is damaged."
    )


def _job_type(kind: str) -> JobType:
    if kind not in JOB_TYPES:
        raise DamagedJob(f"There is no job of the kind “{kind}”.")
    return JOB_TYPES[kind]


def _validate_json(model: type[ModelT], stored: Mapping[str, Any], sentence: str) -> ModelT:
    try:
        return model.model_validate(stored)
    except ValidationError as error:
        fields = {
            ".".join(str(part) for part in problem["loc"]): reason(problem)
            for problem in error.errors()
        }
        raise DamagedJob(f"{sentence} {named_reasons(fields)}") from error
