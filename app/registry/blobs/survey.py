"""The blobs of the store, and which of them rows refer to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from app.registry.blobs.references import all_references, with_callback
from app.registry.db import Database
from app.registry.storage.store import BlobStat, BlobStore


@dataclass
class Survey:
    """The blobs of the store and what the rows say about them.

    `unknown`: hashes that no row has named, not even one whose references no longer count.
    """

    stored: dict[str, BlobStat]
    in_trash: dict[str, BlobStat]
    unreferenced: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    needed: set[str] = field(default_factory=set)  # in the trash, though a row refers to them

    def blobs(self, hashes: Iterable[str]) -> list[BlobStat]:
        """The stored blobs with these hashes."""
        return [self.stored[sha256] for sha256 in hashes]

    def in_trash_for_good(self, taken: Iterable[BlobStat], before: datetime) -> list[BlobStat]:
        """What lay in the trash since `before`, or twice, there and among the blobs.

        Without what rows refer to, and what this sweep has just `taken`.
        """
        stays = self.needed | {blob.sha256 for blob in taken}
        return [
            blob
            for sha256, blob in self.in_trash.items()
            if sha256 not in stays and (blob.modified < before or sha256 in self.stored)
        ]


def survey_store(
    database: Database,
    store: BlobStore,
    jobs_since: datetime,
    on_item: Callable[[], None] = lambda: None,
) -> Survey:
    """List the trash, then the blobs, then read what the rows refer to.

    So what another sweep discards meanwhile is not in both lists. References of io jobs count if
    they ended after `jobs_since`. `on_item` is called for each item.
    """
    in_trash = {blob.sha256: blob for blob in with_callback(store.list_trash(), on_item)}
    stored = {blob.sha256: blob for blob in with_callback(store.list(), on_item)}
    survey = Survey(stored, in_trash)
    survey.unreferenced, survey.unknown = set(survey.stored), set(survey.stored)
    if survey.stored or survey.in_trash:
        for sha256, keeps in all_references(database, jobs_since, on_item):
            survey.unknown.discard(sha256)
            if keeps:
                survey.unreferenced.discard(sha256)
                if sha256 in survey.in_trash and sha256 not in survey.stored:
                    survey.needed.add(sha256)
    return survey
