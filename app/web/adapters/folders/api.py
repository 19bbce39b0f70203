"""REST: adapters in the folders of other programs."""

from __future__ import annotations

from typing import Self

from pydantic import Field

from app.registry.adapters import folders, service
from app.registry.adapters.folders import KeptAdapter
from app.registry.job_kinds.states import JobStatus
from app.registry.tables.adapters import LATEST
from app.web.access.needs import Action, Router
from app.web.adapters.downloads.api import Version
from app.web.answers import Answer
from app.web.state import AdapterId, Reading, Slug, State, Writing

router = Router(tags=["files"])


class KeptOut(Answer):
    """A version or alias of an adapter in a folder."""

    adapter_id: int = Field(description="The adapter.")
    version: str = Field(description="The version or alias that is kept.")
    file: str = Field(description="Name of its weights in the folder.")
    status: JobStatus = Field(description="Whether it is being written or was.")
    error: str | None = Field(description="What is in the way, as a sentence.")
    written: int | None = Field(description="Number of the version that was written last.")

    @classmethod
    def of_kept(cls, kept: KeptAdapter) -> Self:
        """An adapter in a folder."""
        return cls.of(
            kept.args,
            kept.job,
            adapter_id=kept.job.subject_id,
            written=kept.result.version,
        )


@router.get("/folders", Action.LOOK)
def get_folders(state: State, session: Reading) -> dict[str, list[KeptOut]]:
    """Get the adapters that are kept in each folder of the settings, by its name."""
    return {
        name: [KeptOut.of_kept(kept) for kept in folders.list_kept(session, name)]
        for name in state.settings.export_folder_paths
    }


@router.put("/folders/{folder}/adapters/{adapter_id}", Action.ADMIN)
def keep_in_folder(
    folder: Slug, adapter_id: AdapterId, state: State, session: Writing, version: Version = None
) -> KeptOut:
    """Keep a version of an adapter in a folder.

    What an alias points to is kept up to date.
    """
    adapter = service.get_adapter(session, adapter_id)
    kept = folders.keep(session, state.settings, adapter, folder, version or LATEST)
    return KeptOut.of_kept(kept)


@router.delete("/folders/{folder}/adapters/{adapter_id}", Action.ADMIN)
def remove_from_folder(
    folder: Slug, adapter_id: AdapterId, session: Writing, version: Version = None
) -> KeptOut:
    """Remove the files of an adapter from a folder.

    An adapter that was deleted for good is named by its id.
    """
    return KeptOut.of_kept(folders.remove(session, adapter_id, folder, version or LATEST))
