"""Deletes rows for good, then at once the files that nothing refers to any more.

A domain's function deletes the rows in a session and says what they were (`Deletion`). `preview`
calls it and rolls back, so what is announced is what happens. `delete` commits, then deletes the
files. A crash in between leaves files that nothing refers to, for the sweep.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import sqlalchemy as sa
from pydantic import Field
from sqlmodel import Session, col

from app.registry.api_records import api_record
from app.registry.blobs import findings, latents, looks, ownership, thumbnails
from app.registry.blobs.guard import lock_deletion
from app.registry.blobs.ownership import Owner
from app.registry.blobs.references import find_referenced
from app.registry.config import Settings
from app.registry.db import Database, in_chunks, utcnow
from app.registry.storage.store import BlobNotFound, BlobStore
from app.registry.tables.blobs import ErasedHash
from app.registry.tables.rows import deleted_too
from app.registry.wording import plural

ERASED_KEPT = timedelta(days=30)  # a worker that was away for longer keeps its cache of encodings
THREADS = 16  # a bucket takes a while for each file
LISTED_FROM = 200  # from this many files on, one listing is cheaper than asking for each
TRAINED_ON = "trained on"
HOLDERS = {
    "adapter": ("it is the cover of an adapter", "they are covers of adapters"),
    "adapter_file": ("another version has the same file", "other versions have the same files"),
    "adapter_version": ("another version has the same file", "other versions have the same files"),
    "blind_test": ("a blind test shows it", "a blind test shows them"),
    "checkpoint": ("another run continues from it", "other runs continue from them"),
    "dataset_version": ("a run was trained on it", "runs were trained on them"),
    "image": ("a dataset has the same image", "datasets have the same images"),
    "io_job": ("a job of the last days refers to it", "jobs of the last days refer to them"),
    "recipe": ("a recipe starts from it", "recipes start from them"),
    "render": ("a render starts from it", "renders start from them"),
    "render_image": ("another render shows it", "other renders show them"),
    "render_source": (
        "a render starts from it, or did in the last hours",
        "renders start from them, or did in the last hours",
    ),
    "sample": (
        "it is a sample of another run or of a version",
        "they are samples of other runs or of versions",
    ),
    "thumbnail": ("it is still shown", "they are still shown"),
}
"""Why a file stays, and why several do, by the table of the row that refers to them."""


@dataclass
class Deletion:
    """The rows that a domain's function deleted.

    `goes`: in words, such as “2 checkpoints”; `stays`: sentences. `files`: the hashes of the files
    that the deleted rows referred to, and maybe hashes of what was never stored; `captions`: hashes
    of deleted captions.
    """

    title: str
    goes: list[str] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)
    files: set[str] = field(default_factory=set)
    captions: set[str] = field(default_factory=set)

    def count(self, number: int, word: str, words: str | None = None) -> None:
        """Add a number of rows to `goes`, unless it is zero; `words` is a plural without s."""
        if number:
            self.goes.append(plural(number, word, words))

    def include(self, other: Deletion) -> None:
        """Add what another deletion deleted."""
        self.goes += other.goes
        self.stays += other.stays
        self.files |= other.files
        self.captions |= other.captions


@api_record
class FreedSpace:
    """The parts and files that a final deletion removes or has removed."""

    title: str = Field(description="What is deleted, in words.", examples=["run 3, “Ink”"])
    goes: Sequence[str] = Field(default=(), examples=[["2 checkpoints"]])
    """Its parts, in words."""
    stays: Sequence[str] = Field(default=(), description="What stays and why, as sentences.")
    files: int = Field(default=0, description="Number of stored files.")
    size_bytes: int = Field(default=0, description="Their size: the space that is freed.")


class Registry(Protocol):
    """The rows and files that a deletion works on, such as the state of an app."""

    @property
    def settings(self) -> Settings:
        """The settings, which name the data folder."""

    @property
    def database(self) -> Database:
        """The rows."""

    @property
    def store(self) -> BlobStore:
        """The files."""


Removal = Callable[[Session], Deletion]


def preview(state: Registry, remove: Removal) -> FreedSpace:
    """The effect that `delete` would have now; nothing is changed. Raises as the removal does."""
    deletion, unreferenced = _rehearse(state, remove)
    sizes = sizes_of(state.store, unreferenced)
    gone = _own(state, deletion, set(sizes))
    return _report(deletion, {sha256: sizes[sha256] for sha256 in gone})


def delete(state: Registry, remove: Removal) -> FreedSpace:
    """Delete for good: rows first, then the files that nothing refers to any more.

    The store is asked before, so that a slow bucket keeps no other writer waiting; within the
    transaction only for what became unreferenced in between.
    """
    _, asked = _rehearse(state, remove)
    sizes = sizes_of(state.store, asked)
    with state.database.write() as session, deleted_too(session):
        deletion = remove(session)
        unreferenced = _free(session, deletion)
        findings.forget_problems(session, *unreferenced)
        sizes |= sizes_of(state.store, unreferenced - asked)
        sizes = {sha256: size for sha256, size in sizes.items() if sha256 in unreferenced}
        _remember(session, sizes.keys() | deletion.captions)
    try:
        gone = _delete_files(state, _own(state, deletion, set(sizes)))
        latents.forget(state.settings.data_dir, deletion.files | deletion.captions)
    finally:
        state.database.forget_deleted_text()
    return _report(deletion, {sha256: sizes[sha256] for sha256 in gone})


def _rehearse(state: Registry, remove: Removal) -> tuple[Deletion, set[str]]:
    """The deletion that a removal would make now, and the files that lose their last reference."""
    with state.database.write() as session, deleted_too(session):
        deletion = remove(session)
        unreferenced = _free(session, deletion)
        session.rollback()
    return deletion, unreferenced


def _free(session: Session, deletion: Deletion) -> set[str]:
    """The files that nothing refers to any more; adds sentences on the others."""
    session.flush()
    looks.delete_of(session, deletion.files)
    deletion.files |= thumbnails.delete_of(session, deletion.files)
    held = find_referenced(session, deletion.files)
    by_holder = Counter(held.values())
    if any(TRAINED_ON in sentence for sentence in deletion.stays):
        del by_holder["dataset_version"]  # it was said which runs they are
    for table, number in sorted(by_holder.items()):
        of_one, of_many = HOLDERS.get(table, ("it is still used", "it is still used"))
        words = f"stays: {of_one}" if number == 1 else f"stay: {of_many}"
        deletion.stays.append(f"{plural(number, 'file')} {words}.")
    return deletion.files - held.keys()


def _own(state: Registry, deletion: Deletion, hashes: set[str]) -> set[str]:
    """These files; none, with a sentence, if another database may need them."""
    found = ownership.check(state.database, state.store)
    if not hashes or found.owner in (Owner.THIS, Owner.NOBODY):
        return hashes
    deletion.stays.append(f"The files stay: another database may need them. {found.sentence}")
    return set()


def _remember(session: Session, hashes: Iterable[str]) -> None:
    """Write down what was deleted; forget what is long gone.

    Only hashes of stored files and captions: rows also name others, such as that of an upload,
    which new rows may name again.
    """
    old = sa.delete(ErasedHash).where(col(ErasedHash.at) < utcnow() - ERASED_KEPT)
    session.connection().execute(old)
    session.add_all([ErasedHash(sha256=sha256) for sha256 in sorted(hashes)])


def discard(state: Registry, files: Iterable[str]) -> None:
    """Delete files whose rows were refused, unless other rows refer to them."""
    delete(state, lambda _: Deletion("", files=set(files)))


def sizes_of(store: BlobStore, hashes: set[str]) -> dict[str, int]:
    """The size of each of these files that is stored, in bytes."""
    if not hashes:
        return {}
    if len(hashes) >= LISTED_FROM:
        return {blob.sha256: blob.size for blob in store.list() if blob.sha256 in hashes}
    with ThreadPoolExecutor(THREADS) as threads:
        sizes = threads.map(lambda sha256: _size(store, sha256), hashes)
        return {
            sha256: size for sha256, size in zip(hashes, sizes, strict=True) if size is not None
        }


def _size(store: BlobStore, sha256: str) -> int | None:
    with contextlib.suppress(BlobNotFound):
        return store.stat(sha256).size
    return None


def _delete_files(state: Registry, hashes: Iterable[str]) -> set[str]:
    """Delete those files that still nothing refers to; return their hashes."""
    gone: set[str] = set()
    for chunk in in_chunks(hashes):
        with state.database.write() as session, ThreadPoolExecutor(THREADS) as threads:
            lock_deletion(session)
            unreferenced = set(chunk) - find_referenced(session, chunk).keys()
            for _ in threads.map(state.store.delete, unreferenced):
                pass
            gone |= unreferenced
    return gone


def _report(deletion: Deletion, sizes: dict[str, int]) -> FreedSpace:
    return FreedSpace(
        title=deletion.title,
        goes=tuple(deletion.goes),
        stays=tuple(dict.fromkeys(deletion.stays)),
        files=len(sizes),
        size_bytes=sum(sizes.values()),
    )
