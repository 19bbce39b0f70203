"""The reasons why a training fails, one class for each thing a person can do about it."""


class TrainingError(Exception):
    """The training failed; the message is a sentence for people, `code` is for programs."""

    code = "training_failed"


class DatasetError(TrainingError):
    """The images or captions cannot be trained on."""

    code = "dataset"


class DivergedError(TrainingError):
    """The loss or a gradient was NaN or infinite; the adapter was not changed by it."""

    code = "diverged"


class DeadAdapterError(TrainingError):
    """The adapter has no effect."""

    code = "dead"


class OutOfMemoryError(TrainingError):
    """The machine or its GPU has too little memory for this config."""

    code = "out_of_memory"


class CheckpointError(TrainingError):
    """The folder has checkpoints of another training, or no readable one."""

    code = "checkpoint"


class StorageError(TrainingError):
    """A file could not be written."""

    code = "storage"


class LostCacheError(TrainingError):
    """What was encoded for the training has gone from the cache; it has to start again."""

    code = "lost_cache"


class UnsupportedError(TrainingError):
    """This base model, device or machine does not support the config."""

    code = "unsupported"
