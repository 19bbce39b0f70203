"""REST: the proof of a download, before or after it was fetched."""

from __future__ import annotations

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query
from pydantic import BaseModel

from app.web.adapters.api import Version, find_version, proved_file
from app.web.state import Id, State
from worker.core.words import FileFormat, WeightDtype

router = APIRouter(tags=["adapters"])


class LoaderOut(BaseModel):
    """What one program makes of the file; `verdict` and `sentence` say it in words.

    Of `modules` layers so many come out as trained (`right`), at another strength (`wrong`,
    `strength`), or not at all though the program could (`missed`) or because it cannot (`beyond`).
    `needed`: the file is only offered when this program reads it.
    """

    name: str
    title: str
    verdict: str
    sentence: str
    needed: bool
    used: int
    tensors: int
    modules: int
    right: int
    wrong: int
    missed: int
    beyond: int
    strength: float
    worst_error: float
    worst_module: str
    seen_as: str


class ProofOut(BaseModel):
    """The proof of one download.

    `read_back`: by this program's own reader; `loaded`: by the installed diffusers; `drawn`: a
    picture of the same seed, where the base is small enough for that. `not_loaded` and `not_drawn`
    say why a file was not.
    """

    adapter_id: int
    version: int
    format: str
    dtype: str
    sha256: str
    size_bytes: int
    passed: bool
    loaders: list[LoaderOut]
    read_back: dict[str, Any]
    loaded: dict[str, Any] | None
    drawn: dict[str, Any] | None
    not_loaded: str
    not_drawn: str


@router.get("/adapters/{adapter_id}/proof")
async def proof(
    adapter_id: Id,
    state: State,
    file_format: Annotated[FileFormat, Query(alias="format")] = FileFormat.KOHYA,
    dtype: WeightDtype = WeightDtype.FP16,
    version: Version = None,
) -> ProofOut:
    """What seven programs make of the adapter's file; 422 says why a file is not offered.

    A file nobody asked for yet is written and proved first, which takes a moment.
    """
    adapter, row = await anyio.to_thread.run_sync(find_version, state, adapter_id, version)
    file = await proved_file(state, row.key, file_format, dtype)
    found = file.proof
    return ProofOut(
        adapter_id=adapter.key,
        version=row.version,
        format=file.format,
        dtype=file.dtype,
        sha256=file.sha256,
        size_bytes=file.size_bytes,
        passed=found.get("passed", False),
        loaders=[LoaderOut(**result) for result in found.get("loaders", [])],
        read_back=found.get("read_back", {}),
        loaded=found.get("loaded"),
        drawn=found.get("drawn"),
        not_loaded=found.get("not_loaded", ""),
        not_drawn=found.get("not_drawn", ""),
    )
