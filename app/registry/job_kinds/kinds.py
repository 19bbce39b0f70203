"""Every kind of io job with its typed arguments and results.

The columns `args` and `result` of an io job are JSON; these models are the only code that knows
their keys. Unknown keys are ignored, so that rows of older and newer versions can be read.

A new kind needs a member of `JobKind` and two models here (those of captions are in
`caption_kinds`), an entry in `JOB_TYPES` of `job_types`, and a handler in the table of
`worker.runtime.io_jobs`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Unpack

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer

from app.registry.errors import AppError
from app.registry.job_kinds.weighted import ResolvedAdapter
from worker.core.documented import DocumentedModel
from worker.core.inference.config import BlockWeights
from worker.core.lora_files.weights import WeightCard, weight_name
from worker.core.words import FileFormat, FusedDtype, FuseLayout, MergeMethod, WeightDtype


class JobKind(StrEnum):
    """The kinds of io jobs, as stored in their rows."""

    INSPECT_BASE = "inspect_base"
    DOWNLOAD_BASE = "download_base"
    EXPORT_ADAPTER = "export_adapter"
    KEEP_IN_FOLDER = "keep_in_folder"
    IMPORT_ADAPTER = "import_adapter"
    FETCH_HUB_ADAPTER = "fetch_hub_adapter"
    PUBLISH_ADAPTER = "publish_adapter"
    MERGE_ADAPTERS = "merge_adapters"
    RESIZE_ADAPTER = "resize_adapter"
    SCALE_ADAPTER = "scale_adapter"
    FUSE_ADAPTER = "fuse_adapter"
    EXTRACT_ADAPTER = "extract_adapter"
    MEASURE_OVERLAP = "measure_overlap"
    DRY_RUN = "dry_run"
    EVALUATE_RUN = "evaluate_run"
    EVALUATE_WEIGHTS = "evaluate_weights"
    ADVANCE_SWEEP = "advance_sweep"
    SWEEP = "sweep"
    MAKE_THUMBNAILS = "make_thumbnails"
    MEASURE_LOOKS = "measure_looks"
    MEASURE_IMAGE = "measure_image"
    CHECK_FILES = "check_files"
    DELETE_DRAFTS = "delete_drafts"
    CAPTION_IMAGES = "caption_images"
    PREVIEW_CAPTION = "preview_caption"
    DOWNLOAD_CAPTION_MODEL = "download_caption_model"
    CHECK_CAPTION_MODEL = "check_caption_model"


EVALUATIONS = (JobKind.EVALUATE_RUN, JobKind.EVALUATE_WEIGHTS)
DRAWN_KINDS = (*EVALUATIONS, JobKind.ADVANCE_SWEEP)
"""What waits until the images of its grid are drawn."""


class DamagedJob(AppError, status=500, title="This job is damaged", code="damaged_job"):
    """The stored arguments or results of a job cannot be read."""


class JobArgs(BaseModel, frozen=True):
    """Base of the arguments of a kind of job."""

    kind: ClassVar[JobKind]

    def __init_subclass__(cls, kind: JobKind | None = None, **options: Unpack[ConfigDict]) -> None:
        super().__init_subclass__(**options)
        if kind is not None:
            cls.kind = kind

    def stored(self) -> dict[str, Any]:
        """Return the JSON for the row; a field with a default is left out while it has that."""
        written = self.model_dump(mode="json")
        fields = type(self).model_fields
        return {
            name: value
            for name, value in written.items()
            if fields[name].is_required() or getattr(self, name) != fields[name].default
        }


class JobResult(DocumentedModel, frozen=True):
    """Base of the results of a kind of job; empty until the job writes progress or ends."""

    def stored(self) -> dict[str, Any]:
        """Return the JSON for the row: the fields that were given."""
        written = self.model_dump(mode="json")
        return {name: value for name, value in written.items() if name in self.model_fields_set}


class StepProgress(JobResult):
    """Progress in steps, written while the job runs."""

    done: int = 0
    total: int = 1

    @property
    def share(self) -> float:
        """The finished share, from 0 to 1."""
        return self.done / max(1, self.total)


class ByteProgress(JobResult):
    """Progress of a transfer, written while the job runs; None before the first bytes."""

    file: str = ""
    bytes_done: int | None = None
    bytes_total: int | None = None


# Base models


class InspectBaseArgs(JobArgs, kind=JobKind.INSPECT_BASE):
    """No arguments: the subject is the base model."""


class DownloadModelArgs(JobArgs):
    """The repository on the Hub; the subject is the model."""

    repo: str
    revision: str | None


class DownloadBaseArgs(DownloadModelArgs, kind=JobKind.DOWNLOAD_BASE):
    """The file of the repository, if it is only one; the subject is the base model.

    `size_only`: nothing is downloaded but the list of its files.
    """

    file: str | None
    precision: str
    size_only: bool = False


# Files of adapters


class ExportAdapterArgs(JobArgs, kind=JobKind.EXPORT_ADAPTER):
    """The download to write; the subject is the version."""

    format: FileFormat
    dtype: WeightDtype
    with_tags: bool = False


class ExportAdapterResult(JobResult):
    """The hash of the written file; for a file that cannot be right, the code and facts it had."""

    sha256: str | None = None
    code_version: str | None = None
    facts_sha256: str | None = None


class KeepInFolderArgs(JobArgs, kind=JobKind.KEEP_IN_FOLDER):
    """The folder of another program, the version or alias, and the name of its weights there.

    The subject is the adapter.
    `hashes`: of files that earlier jobs wrote there, which may be replaced and removed.
    """

    folder: str
    version: str
    file: str
    removes: bool = False
    hashes: tuple[str, ...] = ()


class KeepInFolderResult(JobResult):
    """The number of the version, the hash of its download, and those of the files there."""

    version: int | None = None
    sha256: str | None = None
    hashes: tuple[str, ...] = ()


class StoredSidecar(BaseModel, frozen=True):
    """A stored file that was sent along with a LoRA file."""

    name: str
    sha256: str


LOSS_CODE = "loss"
"""The error code of an import that would lose much of the file's change."""


class ImportAdapterArgs(JobArgs, kind=JobKind.IMPORT_ADAPTER):
    """The uploaded LoRA file, the adapter it becomes a version of, and the base it has to fit."""

    sha256: str
    filename: str
    adapter_id: int | None = None
    base_model_id: int | None = None
    sidecars: tuple[StoredSidecar, ...] = ()
    allow_loss: bool = False


class ImportAdapterResult(StepProgress):
    """The version of the imported file; `duplicate` if the registry already had it.

    `loss`: the share of the change that a LoRA cannot contain, as a relative norm.
    """

    adapter_id: int | None = None
    version: int | None = None
    duplicate: bool = False
    notes: tuple[str, ...] = ()
    loss: float | None = None


# The Hugging Face Hub


class FetchHubAdapterArgs(JobArgs, kind=JobKind.FETCH_HUB_ADAPTER):
    """The source of a LoRA file on the Hub."""

    repo: str
    revision: str | None
    file: str | None


class FetchHubAdapterResult(ByteProgress):
    """The import job of the downloaded file."""

    import_id: int | None = None


class PublishedImage(BaseModel, frozen=True):
    """An image that is published with an adapter, with its prompt."""

    sha256: str
    prompt: str


class PublishAdapterArgs(JobArgs, kind=JobKind.PUBLISH_ADAPTER):
    """The repository, and what is published in it; the subject is the version."""

    repo: str
    update: bool
    private: bool
    base_model: str
    pictures: tuple[PublishedImage, ...]


class PublishAdapterResult(ByteProgress):
    """The repository as the Hub reports it."""

    repo: str | None = None
    url: str | None = None
    commit: str | None = None
    private: bool | None = None


# Tools


Part = Annotated[ResolvedAdapter, PlainSerializer(lambda adapter: adapter.for_job())]
"""A version of an adapter with its weights."""


class MergeAdaptersArgs(JobArgs, kind=JobKind.MERGE_ADAPTERS):
    """The adapters to merge, and how; `rank` is None for the method that needs none.

    `run_id`: they are checkpoints of this run, whose adapter gets the result as its next version.
    `use`: that becomes the version in use.
    """

    name: str
    parts: tuple[Part, ...]
    method: MergeMethod
    rank: int | None
    density: float
    seed: int
    run_id: int | None = None
    use: bool = False


class ResizeAdapterArgs(JobArgs, kind=JobKind.RESIZE_ADAPTER):
    """The new rank, or the share of the energy to keep; the subject is the version.

    `use`: the result becomes the version in use.
    """

    rank: int | None
    energy: float | None
    dynamic: bool
    use: bool = False


class ScaleAdapterArgs(JobArgs, kind=JobKind.SCALE_ADAPTER):
    """The factors in the blocks of the UNet; the subject is the version.

    `use`: the result becomes the version in use.
    """

    blocks: BlockWeights
    use: bool = False


class FuseOutput(StrEnum):
    """The output of a fusion: another base model here, or a file to download."""

    BASE_MODEL = "base_model"
    DOWNLOAD = "download"


class FuseAdapterArgs(JobArgs, kind=JobKind.FUSE_ADAPTER):
    """The adapters to fuse, and what to write; the subject is the base model."""

    name: str
    parts: tuple[Part, ...]
    layout: FuseLayout
    dtype: FusedDtype
    keep: FuseOutput


class ExtractAdapterArgs(JobArgs, kind=JobKind.EXTRACT_ADAPTER):
    """The tuned base model and the rank; the subject is the base model it was tuned from."""

    tuned_id: int
    rank: int
    name: str


class ShownResult(StepProgress):
    """The renders that show a tool's result; they are ordered when somebody looks.

    `second_render_id`: of the second adapter of a merge.
    """

    before_render_id: int | None = None
    second_render_id: int | None = None
    after_render_id: int | None = None


class NewVersionResult(ShownResult):
    """The version that a tool created, with the figures of its approximation."""

    adapter_id: int | None = None
    slug: str | None = None
    name: str | None = None
    version: int | None = None
    modules: int | None = None
    rank_min: int | None = None
    rank_max: int | None = None
    energy_min: float | None = None
    energy_mean: float | None = None
    relative_error: float | None = None


class FuseAdapterResult(ShownResult):
    """The fused base: a base model, or a stored file for download."""

    layers: int | None = None
    size_bytes: int | None = None
    base_model_id: int | None = None
    slug: str | None = None
    name: str | None = None
    sha256: str | None = None
    filename: str | None = None


# Comparing adapters


class MeasureOverlapArgs(JobArgs, kind=JobKind.MEASURE_OVERLAP):
    """The version with the higher id; the subject is the other one."""

    other_id: int


Measured = Annotated[float, AfterValidator(lambda value: round(value, 4))]
LayerOverlap = tuple[str, Measured, Measured, Measured]
"""The key of a layer, its cosine, and what the inputs and the outputs of both changes share."""


class MeasureOverlapResult(StepProgress):
    """The cosine of both whole changes, how many layers either changes, and those both change."""

    cosine: Measured | None = None
    changed: int | None = None
    layers: tuple[LayerOverlap, ...] | None = None


# Dry runs


class DryRunArgs(JobArgs, kind=JobKind.DRY_RUN):
    """The config of the training that is measured, and its datasets; the subject is the base."""

    config: dict[str, Any]
    dataset_ids: tuple[int, ...]


class RoundTrip(BaseModel, frozen=True):
    """An image before and after the autoencoder of the base."""

    before: str = Field(description="Hash of the image as it is trained on: `/media/{hash}`.")
    after: str = Field(description="Hash of what the autoencoder returns.")
    psnr: float = Field(description="Peak signal-to-noise ratio in dB; higher is closer.")


class DryRunResult(JobResult):
    """What a training takes on this machine; null or empty before the end."""

    device: str = Field("", description="What it was measured on.")
    seconds_per_step: float | None = Field(None, description="Mean time of a step.")
    seconds_low: float | None = Field(None, description="Low end of its interval of 95 %.")
    seconds_high: float | None = Field(None, description="High end of its interval of 95 %.")
    sample_seconds: float | None = Field(None, description="Time of a sample; null: none was made.")
    peak_memory_bytes: int | None = None
    """Most memory at a time: of the GPU; on a CPU of the whole process."""
    layers: int = Field(0, description="Layers that get an adapter.")
    all_layers: int = Field(0, description="Layers of the base model that could have one.")
    changes: tuple[str, ...] = ()
    """What a run changes by itself to fit into memory; measured with that."""
    round_trips: tuple[RoundTrip, ...] = ()
    """The images that lose most in the autoencoder, kept for a week."""


# Evaluations


class UsedPromptSet(DocumentedModel, frozen=True):
    """The version of a prompt set that was drawn, as it was called then."""

    id: int = Field(description="The set; it may have been deleted since.")
    name: str = Field(description="Its name then.")
    version: int = Field(description="The number of its version.")
    named: tuple[str, ...] = ()
    """Its subjects that captions of the images name, so that they are not new."""


class EvaluationArgs(JobArgs):
    """The grid of images to measure; 0 while the quick form of a run is still to be planned.

    Its columns are the base model and the candidates; its rows `prompts`, each of the subject at
    its place, then those `captions` that are not empty, then `plain`: the first prompts without the
    trigger word. `prompt_set`: where the subjects come from; None: they were proposed.
    """

    grid_id: int
    prompt_set: UsedPromptSet | None = None
    subjects: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()

    @property
    def row_groups(self) -> tuple[tuple[str, ...], ...]:
        """The rows by kind; the seed of each is its place among its kind."""
        return self.prompts, tuple(filter(None, self.captions)), self.plain

    @property
    def candidates(self) -> list[str]:
        """The names of the columns after that of the base model."""
        raise NotImplementedError


class EvaluateRunArgs(EvaluationArgs, kind=JobKind.EVALUATE_RUN):
    """The checkpoints at `steps` are compared; the subject is the run.

    `captions`: of the images of the run at the places `trained` and `held_out`, empty where a
    caption cannot be drawn.
    """

    steps: tuple[int, ...] = ()
    trained: tuple[int, ...] = ()
    held_out: tuple[int, ...] = ()

    @property
    def candidates(self) -> list[str]:
        """The names of the columns after that of the base model."""
        return [f"step {step}" for step in self.steps]


class EvaluateWeightsArgs(EvaluationArgs, kind=JobKind.EVALUATE_WEIGHTS):
    """Weights of a version are compared, in rising order; the subject is the version.

    `dataset_id`: whose images have the style; None: those that the version was trained on.
    """

    weights: tuple[float, ...]
    base_model_id: int
    dataset_id: int | None = None

    @property
    def candidates(self) -> list[str]:
        """The names of the columns after that of the base model."""
        return [weight_name(weight) for weight in self.weights]


class Evaluated(BaseModel, frozen=True):
    """The measures of a candidate; None: not measured. `low`, `high`: the interval of `style`."""

    style: Measured | None
    low: Measured | None
    high: Measured | None
    adherence: Measured | None


class EvaluatedStep(Evaluated):
    """The measures of a checkpoint.

    `leak` and `drift`: the style without the trigger word, and how far these images are from the
    base's. `inside`: the style of the dataset's own captions. `closest`: for the trained images
    that it remembers best, their place in `trained` and the distance to its image of their caption.
    """

    step: int
    variety: Measured | None
    copy_ratio: Measured | None
    leak: Measured | None = None
    drift: Measured | None = None
    inside: Measured | None = None
    left_out: str = ""
    is_equal: bool = False
    closest: tuple[tuple[int, Measured], ...] = ()


class EvaluatedWeight(Evaluated):
    """The measures of a weight, with the closeness of patches."""

    weight: float
    patches: Measured


class EvaluationResult(StepProgress):
    """The measures; empty where the style was not measured.

    Of checkpoints the one to keep with the `reason`, and the prompts that differ most (`deciding`);
    of weights the `card`. `notes`: what was not measured, and why. `eyes`: the model that measured,
    and its use.
    """

    steps: tuple[EvaluatedStep, ...] = ()
    recommended: int | None = None
    reason: str = ""
    deciding: tuple[int, ...] = ()
    weights: tuple[EvaluatedWeight, ...] = ()
    card: WeightCard | None = None
    notes: tuple[str, ...] = ()
    eyes: str = ""
    eyes_use: str = ""

    @property
    def kept(self) -> EvaluatedStep | None:
        """The recommended checkpoint."""
        return next((one for one in self.steps if one.step == self.recommended), None)


class AdvanceSweepArgs(EvaluationArgs, kind=JobKind.ADVANCE_SWEEP):
    """The trainings whose images in the grid are measured; without a grid, a look at the sweep.

    `run_ids`: of the columns after that of the base model, which drew `steps`. The subject is the
    sweep of trainings, not of files.
    """

    grid_id: int = 0
    stage: str = ""
    run_ids: tuple[int, ...] = ()
    steps: tuple[int, ...] = ()

    @property
    def candidates(self) -> list[str]:
        """The names of the columns after that of the base model."""
        return [str(run_id) for run_id in self.run_ids]


# Storage


class DeleteDraftsArgs(JobArgs, kind=JobKind.DELETE_DRAFTS):
    """No arguments: all drafts that are old enough."""


class DeleteDraftsResult(StepProgress):
    """The number of files that were deleted with the drafts, and their size."""

    files: int | None = None
    size_bytes: int | None = None


class SweepArgs(JobArgs, kind=JobKind.SWEEP):
    """No arguments: the whole storage is swept."""


class SweepResult(StepProgress):
    """The files that a sweep moved to the trash, or would have, and those it deleted for good.

    `report`: why it only reported, because the files may not be those of this database.
    """

    files: int | None = None
    size_bytes: int | None = None
    emptied_files: int | None = None
    emptied_bytes: int | None = None
    brought_back: int | None = None
    report: str | None = None


class MakeThumbnailsArgs(JobArgs, kind=JobKind.MAKE_THUMBNAILS):
    """No arguments: images without thumbnails get them; those of datasets are measured too."""


class MeasureLooksArgs(JobArgs, kind=JobKind.MEASURE_LOOKS):
    """No arguments: what has no measured look gets one, and weights get their sketch."""


class MeasureImageArgs(JobArgs, kind=JobKind.MEASURE_IMAGE):
    """An image in a file of its own, in base64; removed from the row once the job ends."""

    image: str = ""


class MeasureImageResult(JobResult):
    """Its packed look in base64."""

    look: str | None = None


class CheckFilesArgs(JobArgs, kind=JobKind.CHECK_FILES):
    """No arguments: the store is checked for missing files, then read from where the last ended."""


class CheckFilesResult(StepProgress):
    """The files that were read, how many are damaged or missing, and how many are still due."""

    files: int | None = None
    size_bytes: int | None = None
    problems: int | None = None
    left: int | None = None
