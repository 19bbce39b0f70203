"""Why a training could not go on: one class for each thing a person can do about it."""


class TrainingError(Exception):
    """A training that failed; the message is a sentence for people, `code` is for programs."""

    code = "training_failed"


class DatasetError(TrainingError):
    """The pictures or captions cannot be trained on."""

    code = "dataset"


class DivergedError(TrainingError):
    """The loss or a gradient was not a finite number; the adapter was not touched by it."""

    code = "diverged"


class DeadAdapterError(TrainingError):
    """The training ended with an adapter that changes nothing."""

    code = "dead"


class OutOfMemoryError(TrainingError):
    """The machine or its GPU has not enough memory for this config."""

    code = "out_of_memory"


class CheckpointError(TrainingError):
    """The folder holds checkpoints of another training, or none that can be read."""

    code = "checkpoint"


class StorageError(TrainingError):
    """A file could not be written."""

    code = "storage"


class UnsupportedError(TrainingError):
    """This base, device or machine cannot do what the config asks."""

    code = "unsupported"
