"""Sources of models on this machine: allowed folders, checked paths, and deletion of files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from app.registry.added_models.kinds import ModelKind, Row
from app.registry.config import Settings
from app.registry.errors import InvalidInput

MAX_NAME = 120  # of the columns; a folder may have a longer one


def allowed_folders(settings: Settings) -> list[Path] | None:
    """Folders that models may be added from; None: any, if nobody else can use the server."""
    if settings.model_folder_list or not settings.is_private:
        return settings.model_folder_list
    return None


def require_path(source: str, allowed_folders: Sequence[Path] | None, kind: ModelKind[Row]) -> Path:
    """The resolved path of what is there and may be used. Raises InvalidInput.

    `allowed_folders`: None allows any path on this machine.
    """
    if "\0" in source or not source.strip():
        raise bad_source(f"Enter the path of {kind.places}, or owner/name on the Hub.")
    try:
        return _checked_path(source.strip(), allowed_folders, kind)
    except (OSError, RuntimeError) as error:  # no such user, too long, a loop, not permitted
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise bad_source(f"This path cannot be read: {reason}. Choose another one.") from error


def _checked_path(
    source: str, allowed_folders: Sequence[Path] | None, kind: ModelKind[Row]
) -> Path:
    path = Path(source).expanduser()
    if not path.is_absolute():
        raise bad_source(
            f"Enter the absolute path of {kind.places}, or the name of a model on the Hub as "
            "owner/name."
        )
    path = path.resolve()
    if allowed_folders is not None and not any(
        path.is_relative_to(folder.resolve()) for folder in allowed_folders
    ):
        raise bad_source(
            f"{kind.title} can only be added from the folders in BRUSHWORK_MODEL_FOLDERS. Move "
            "the model there, or ask an administrator to add its folder."
        )
    if not path.exists():
        raise bad_source(f"{path} does not exist on the machine that runs Brushwork.")
    return path


def bad_source(sentence: str) -> InvalidInput:
    """The error for a source that cannot be used."""
    return InvalidInput(sentence, fields={"source": sentence})


def delete_model_files(place: Path | None) -> None:
    """Delete the files of a removed or unfinished model, if there is a path to delete."""
    if place is not None and place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    elif place is not None:
        place.unlink(missing_ok=True)
