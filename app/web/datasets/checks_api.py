"""REST: what to look at in a dataset before training."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field

from app.registry.datasets import service
from app.registry.datasets.checks.findings import Check, Severity
from app.registry.datasets.checks.service import check_dataset as checked
from app.web.answers import Answer
from app.web.state import DatasetId, State

router = APIRouter(tags=["datasets"])


class FindingOut(Answer):
    """Something to look at before a training."""

    check: Check = Field(description="What was checked.")
    level: Severity = Field(
        description="`error`: cannot train. `warning`: likely makes the result worse. `advice`: "
        "right for some styles."
    )
    title: str = Field(description="What was found, with its count.")
    reason: str = Field(description="Why it matters and what to do, as a sentence or two.")
    count: int = Field(description="Number of images that it concerns.")
    image_ids: list[int] = Field(description="Ids of these images.")
    phrase: str = Field(description="The words that it is about; empty for most checks.")
    fragments: list[str] = Field(
        description="Words to remove from captions as they are written there, most common first."
    )
    piles: list[list[int]] = Field(
        description="Ids of images that belong together, the one to keep first."
    )
    details: list[str] = Field(description="Further sentences.")


class ChecksOut(Answer):
    """The findings of a dataset, and what was checked without one."""

    image_count: int = Field(description="Number of images checked; not those set aside.")
    caption_count: int = Field(description="Number of captions checked.")
    open: int = Field(description="Number of findings that are not mere advice.")
    findings: list[FindingOut] = Field(description="What was found.")
    clear: list[Check] = Field(description="What was checked without a finding.")
    not_measured: dict[Check, str] = Field(
        description="Why a check could not look at all images: “not measured for 12 images yet”."
    )


@router.get("/datasets/{dataset_id}/checks")
def check_dataset(dataset_id: DatasetId, state: State) -> ChecksOut:
    """Check a dataset before training.

    Captions that name the style, lack the trigger word or are the same; images that are alike, too
    small, blurry, elongated, transparent or cannot be read; what the set never shows. Images that
    are set aside are not checked. No finding stops a run, but one with an `error` fails.
    """
    with state.database.snapshot() as session:
        report = checked(session, service.get_dataset(session, dataset_id))
    return ChecksOut.of(report, open=len(report.open))
