"""Where models may come from: folders and files of this machine, and repositories on the Hub."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.registry.config import Settings
from app.registry.errors import InvalidInput
from app.registry.hub_source import SCHEME, HubSource, read_source

MAX_NAME = 120  # of the columns; a folder may have a longer one


@dataclass(frozen=True)
class SourceWords:
    """How sentences name the models and what a path may lead to."""

    models: str
    place: str


def allowed_folders(settings: Settings) -> list[Path] | None:
    """Folders that models may be added from; None: any, if nobody else can use the server."""
    if settings.model_folder_list or not settings.is_private:
        return settings.model_folder_list
    return None


def require_path(source: str, allowed_folders: Sequence[Path] | None, words: SourceWords) -> Path:
    """The resolved path of what is there and may be used. Raises InvalidInput.

    `allowed_folders`: None allows any path on this machine.
    """
    if "\0" in source or not source.strip():
        raise bad_source(f"Enter the path of {words.place}, or owner/name on the Hub.")
    try:
        return _checked_path(source.strip(), allowed_folders, words)
    except (OSError, RuntimeError) as error:  # no such user, too long, a loop, not permitted
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise bad_source(f"This path cannot be read: {reason}. Choose another one.") from error


def _checked_path(source: str, allowed_folders: Sequence[Path] | None, words: SourceWords) -> Path:
    path = Path(source).expanduser()
    if not path.is_absolute():
        raise bad_source(
            f"Enter the absolute path of {words.place}, or the name of a model on the Hub as "
            "owner/name."
        )
    path = path.resolve()
    if allowed_folders is not None and not any(
        path.is_relative_to(folder.resolve()) for folder in allowed_folders
    ):
        raise bad_source(
            f"{words.models} can only be added from the folders in BRUSHWORK_MODEL_FOLDERS. Move "
            "the model there, or ask an administrator to add its folder."
        )
    if not path.exists():
        raise bad_source(f"{path} does not exist on the machine that runs Brushwork.")
    return path


def bad_source(sentence: str) -> InvalidInput:
    """The error for a source that cannot be used."""
    return InvalidInput(sentence, fields={"source": sentence})


def is_from_hub(source: str) -> bool:
    """True if the files of a model with this source come from the Hub."""
    return source.startswith(SCHEME)


def are_shared(repository: HubSource, others: Iterable[str]) -> bool:
    """Whether one of these sources of other models has its files in the same folder."""
    return any(
        is_from_hub(other) and (read_source(other) or repository).repo == repository.repo
        for other in others
    )


def delete_model_files(place: Path) -> None:
    """Delete the files of a removed or unfinished model."""
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)
