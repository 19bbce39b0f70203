"""Datasets in and out: `import`, `export` and `duplicate`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from app.cli.progress_line import progress_line
from app.registry.datasets import service, uploads
from app.registry.datasets.edits.copying import duplicate_dataset
from app.registry.datasets.transfer.exporting import (
    Contents,
    dataset_contents,
    export_chunks,
    version_contents,
)
from app.registry.datasets.uploads import UploadOutcome
from app.registry.errors import InvalidInput, NotFound
from app.registry.state import AppState
from app.registry.tables.datasets import NAME_LENGTH, TRIGGER_LENGTH, Dataset
from app.registry.uploads import UploadedFile
from app.registry.wording import plural, shortened, size_text


def run_import(arguments: Namespace, state: AppState) -> int:
    """Import the files and print what became of them; 1 if one was refused.

    Raises NotFound for a dataset that does not exist.
    """
    missing = [path for path in arguments.paths if not path.exists()]
    for path in missing:
        print(f"{path} does not exist.", file=sys.stderr)
    if missing:
        return 1
    files = list(_files(arguments.paths))
    dataset = _dataset(state, arguments, files)
    with progress_line() as show:
        outcome = uploads.receive(
            state,
            dataset.key,
            files,
            on_image=lambda at: show(f"Image {at.done:,} of {at.total:,}: {at.name}"),
        )
    for refused in outcome.rejected:
        print(f"{refused.filename}: {refused.reason}", file=sys.stderr)
    print(f"{dataset.slug}: {_sentence(outcome)}")
    return 1 if outcome.rejected else 0


def _files(paths: Sequence[Path]) -> Iterator[UploadedFile]:
    """The files, and all in the folders by their paths in these; in a stable order."""
    for path in paths:
        if path.is_dir():
            for found in sorted(path.rglob("*")):
                if found.is_file():
                    yield UploadedFile(found.relative_to(path.parent).as_posix(), found)
        else:
            yield UploadedFile(path.name, path)


def _dataset(state: AppState, arguments: Namespace, files: Sequence[UploadedFile]) -> Dataset:
    """The dataset to import into; without `--into`, a new one."""
    if arguments.into:
        with state.database.read() as session:
            return service.dataset_by_slug(session, arguments.into)
    word = (arguments.trigger_word or "").strip()
    if len(word) > TRIGGER_LENGTH or "," in word:
        raise InvalidInput(f"Use a trigger word of at most {TRIGGER_LENGTH} letters, no comma.")
    about = uploads.read_about(files)
    found = about.name or arguments.paths[0].resolve().stem or "New dataset"
    name = arguments.name or shortened(found, NAME_LENGTH)
    with state.database.write() as session:
        return service.create_dataset(session, name, trigger_word=word)


def _sentence(outcome: UploadOutcome) -> str:
    again = sum(added.duplicate for added in outcome.accepted)
    words = [f"{plural(len(outcome.accepted) - again, 'image')} added"]
    if again:
        words.append(f"{again:,} there already")
    if outcome.captioned:
        words.append(f"{plural(len(outcome.captioned), 'caption')} read")
    return ", ".join(words)


def run_export(arguments: Namespace, state: AppState) -> int:
    """Write the archive and print its path; 1 if the file cannot be written.

    Raises NotFound or Conflict.
    """
    contents = _contents(state, arguments.slug, arguments.version)
    target: Path = arguments.output or Path(contents.filename)
    if target.is_dir():
        target = target / contents.filename
    unfinished = target.with_name(f"{target.name}.part")
    try:
        with unfinished.open("wb") as file, progress_line() as show:
            for chunk in export_chunks(state.store, contents):
                file.write(chunk)
                show(f"{size_text(file.tell())} written")
        print(unfinished.replace(target))
    except OSError as error:
        print(f"{target} cannot be written: {error.strerror or error}.", file=sys.stderr)
        return 1
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return 0


def _contents(state: AppState, slug: str, version: int | None) -> Contents:
    with state.database.snapshot() as session:
        dataset = service.dataset_by_slug(session, slug)
        if version is None:
            return dataset_contents(session, dataset.key)
        contents = version_contents(session, version)
    if contents.slug != slug:
        raise NotFound(f"“{slug}” has no version {version}: `brushwork datasets show {slug}`.")
    return contents


def run_duplicate(arguments: Namespace, state: AppState) -> int:
    """Copy a dataset and print the slug of the copy. Raises NotFound and InvalidInput."""
    name = " ".join((arguments.name or "").split()) or None
    if name and len(name) > NAME_LENGTH:
        raise InvalidInput(f"Use a name of at most {NAME_LENGTH} letters.")
    with state.database.write() as session:
        dataset = service.dataset_by_slug(session, arguments.slug)
        copy = duplicate_dataset(session, dataset.key, name=name)
        summary = service.summary(session, copy)
    print(f"{copy.slug}: {plural(summary.image_count, 'image')}")
    return 0
