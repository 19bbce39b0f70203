"""REST: the versions of an adapter, their aliases and differences."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import BaseModel, Field

from app.registry.adapters import service
from app.registry.adapters.usual_weight import set_usual_weight
from app.registry.adapters.versions import aliases
from app.registry.comparison.side_by_side import PromptPair
from app.registry.comparison.versions import compare
from app.registry.db import Session
from app.registry.job_kinds.weighted import VersionName
from app.registry.runs.rerun import require_run, train_again
from app.registry.runs.settings import Difference
from app.registry.slugs import RowId
from app.registry.tables.adapters import WEIGHT_CARDS, Adapter, AdapterVersion
from app.web.access.needs import Action, Router
from app.web.adapters.api import VersionFacts
from app.web.answers import Answer
from app.web.problems import problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.runs.start_api import RunCreated
from app.web.state import AdapterId, Reading, Writing
from worker.core.documented import DocumentedModel
from worker.core.inference.config import AdapterWeight

router = Router(tags=["versions"])

UNLISTED = problems({409: "It holds the checkpoints of a run."})
Version = Annotated[str, Path(max_length=60)]
Alias = Annotated[str, Path(max_length=1_000)]
Compared = Annotated[str | None, Query(max_length=60, description="A number or an alias.")]


class VersionOut(VersionFacts):
    """A version of an adapter, with its origin; only its usual weight can be changed."""

    adapter_id: int = Field(description="Its adapter.")
    version: int = Field(description="Its number, from 1.")
    aliases: list[str] = Field(description="The aliases that point to it.")
    tensor_sha256: str | None
    """SHA-256 of the canonical tensors; identical weights have the same hash."""
    file_tensor_sha256: str | None
    """SHA-256 of the tensors in the imported file or the default download."""
    trigger_words: list[str] = Field(description="Its trigger words when it was made.")
    dataset_version_id: int | None = Field(description="The images as they were.")
    code_version: str | None = Field(description="Version of Brushwork that made it.")
    config: dict[str, Any] = Field(description="All settings of the training.")
    details: dict[str, Any] = Field(description="Its origin, such as the imported file.")


class VersionPatch(DocumentedModel):
    """The change to a version."""

    model_config = example(usual_weight=0.8)
    usual_weight: AdapterWeight
    """The weight that is used when none is named. Downloads carry one other than 1."""


class AliasIn(DocumentedModel):
    """The version that an alias points to."""

    model_config = example(version=2)
    version: RowId | VersionName
    """Number of the version, or another alias of it."""


class AliasOut(BaseModel):
    """An alias with the number of the version it names."""

    alias: str = Field(description="The alias.")
    version: int = Field(description="Number of the version.")


class CompareOut(Answer):
    """The differences of two versions; equal values are left out."""

    a: int = Field(description="Number of the first version.")
    b: int = Field(description="Number of the second version.")
    same_weights: bool | None
    """True if both have identical tensors; null if that is unknown."""
    settings: list[Difference] = Field(description="Settings of the training that differ.")
    data: list[Difference] = Field(description="Differences in images and captions.")
    file: list[Difference] = Field(description="Differences in the files.")
    notes: list[str] = Field(description="What could not be compared.")
    samples: list[PromptPair]
    """Samples of the same prompts and seeds; empty unless both have some."""


def version_out(version: AdapterVersion, names: dict[str, int]) -> VersionOut:
    """A version as the API shows it."""
    named = list(aliases.by_number(names, version.version))
    return VersionOut.of_version(
        version,
        aliases=named,
        details={key: value for key, value in version.details.items() if key != WEIGHT_CARDS},
    )


def _find_version(
    session: Session, adapter_id: int, version: int | str | None
) -> tuple[Adapter, AdapterVersion]:
    adapter = service.get_adapter(session, adapter_id)
    return adapter, service.get_version(session, adapter, version)


@router.get("/adapters/{adapter_id}/versions", Action.LOOK)
def list_versions(adapter_id: AdapterId, session: Reading, part: Part) -> list[VersionOut]:
    """List the versions of an adapter, newest first."""
    adapter = service.get_adapter(session, adapter_id)
    found = service.list_versions(session, adapter.key, limit=part.size, before=part.after)
    names = aliases.alias_numbers(session, adapter.key)
    total = service.count_versions(session, adapter.key)
    shown = part.cut(found, lambda row: row.version, total=total)
    return [version_out(row, names) for row in shown]


@router.get("/adapters/{adapter_id}/versions/{version}", Action.LOOK)
def get_version(adapter_id: AdapterId, version: Version, session: Reading) -> VersionOut:
    """Get a version by its number or an alias."""
    adapter, row = _find_version(session, adapter_id, version)
    return version_out(row, aliases.alias_numbers(session, adapter.key))


@router.patch("/adapters/{adapter_id}/versions/{version}", Action.EDIT)
def change_version(
    adapter_id: AdapterId, version: Version, body: VersionPatch, session: Writing
) -> VersionOut:
    """Set the usual weight of a version, or of a checkpoint; all else never changes."""
    row = set_usual_weight(session, adapter_id, version, body.usual_weight)
    return version_out(row, aliases.alias_numbers(session, adapter_id))


@router.post(
    "/adapters/{adapter_id}/versions/{version}/again",
    Action.TRAIN,
    status_code=202,
    responses=problems({422: "It was not trained here, or its images are gone."}),
)
def train_version_again(adapter_id: AdapterId, version: Version, session: Writing) -> RunCreated:
    """Train a version again with its settings and images, as the next version.

    Of a checkpoint, or of an adapter that you may not change: as a new adapter.

    `warnings` name the differences to the first training.
    """
    adapter, row = _find_version(session, adapter_id, version)
    run_id = require_run(adapter, row)
    into = adapter.key if adapter.is_listed else None
    run, differences = train_again(session, run_id, adapter_id=into)
    return RunCreated(id=run.key, status=run.state, warnings=differences)


@router.get("/adapters/{adapter_id}/aliases", Action.LOOK)
def list_aliases(adapter_id: AdapterId, session: Reading, part: Part) -> list[AliasOut]:
    """List the aliases of an adapter.

    `latest` names the version that is used by default.
    """
    adapter = service.get_adapter(session, adapter_id)
    names = aliases.alias_numbers(session, adapter.key)
    shown = part.of([*names.items()], lambda item: item[0])
    return [AliasOut(alias=alias, version=number) for alias, number in shown]


@router.put(
    "/adapters/{adapter_id}/aliases/{alias}",
    Action.EDIT,
    responses=UNLISTED,
)
def set_alias(adapter_id: AdapterId, alias: Alias, body: AliasIn, session: Writing) -> AliasOut:
    """Create an alias of a version, or move it to that version."""
    adapter, row = _find_version(session, adapter_id, body.version)
    service.require_listed(adapter)
    stored = service.set_alias(session, row, alias)
    return AliasOut(alias=stored, version=row.version)


@router.delete(
    "/adapters/{adapter_id}/aliases/{alias}",
    Action.EDIT,
    status_code=204,
    responses=problems({422: "`latest` cannot be deleted."}),
)
def delete_alias(adapter_id: AdapterId, alias: Alias, session: Writing) -> None:
    """Delete an alias; its version stays."""
    adapter = service.get_adapter(session, adapter_id)
    aliases.delete_alias(session, adapter.key, alias)


@router.get("/adapters/{adapter_id}/compare", Action.LOOK)
def compare_versions(
    adapter_id: AdapterId,
    session: Reading,
    a: Compared = None,
    b: Compared = None,
) -> CompareOut:
    """Compare two versions.

    `b` defaults to `latest`, `a` to the version before `b`; without both, the two newest are
    compared.
    """
    adapter = service.get_adapter(session, adapter_id)
    found = compare(session, adapter, a, b)
    return CompareOut.of(found, a=found.a.version, b=found.b.version, samples=found.pairs)
