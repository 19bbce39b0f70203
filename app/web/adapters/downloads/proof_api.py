"""REST: the proof of a download."""

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
    """The result of one program reading the file; `verdict` and `sentence` put it in words.

    Of `modules` layers, `right` are applied as trained, `wrong` at another strength (`strength`),
    `missed` are ignored although the program supports them, and `beyond` are not supported.
    `needed`: the file is only offered if this program reads it.
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

    `read_back`: by Brushwork's own reader; `loaded`: by the installed diffusers; `drawn`: an image
    generated with the same seed, if the base model is small enough. `not_loaded` and `not_drawn`
    give the reason if a check was skipped.
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
    """The proof of the adapter's file for seven programs; 422 says why a file is not offered.

    A new combination of format and dtype is written first, which takes a moment.
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
