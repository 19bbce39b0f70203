"""The reasons why a training fails, one class for each thing a person can do about it."""


class TrainingError(Exception):
    """The training failed; the message is a sentence for people, `code` is for programs."""

    code = "training_failed"

    def __init_subclass__(cls, code: str) -> None:
        cls.code = code


class DatasetError(TrainingError, code="dataset"):
    """The images or captions cannot be trained on."""


class DivergedError(TrainingError, code="diverged"):
    """The loss or a gradient was NaN or infinite; the adapter was not changed by it."""


class DeadAdapterError(TrainingError, code="dead"):
    """The adapter has no effect."""


class OutOfMemoryError(TrainingError, code="out_of_memory"):
    """The machine or its GPU has too little memory for this config."""


class CheckpointError(TrainingError, code="checkpoint"):
    """The folder has checkpoints of another training, or no readable one."""


class StorageError(TrainingError, code="storage"):
    """A file could not be written."""


class LostCacheError(TrainingError, code="lost_cache"):
    """What was encoded for the training has gone from the cache; it has to start again."""


class UnsupportedError(TrainingError, code="unsupported"):
    """This base model, device or machine does not support the config."""
