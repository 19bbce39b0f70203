"""Every stored file is known by the rows that need it, in words."""

from __future__ import annotations

from sqlmodel import SQLModel

import app.registry.tables.all  # noqa: F401  (fills the metadata)
from app.registry.blobs.report import describe
from app.registry.blobs.subjects import list_references
from app.registry.tables.blobs import FileProblem
from tests.app.blobs.conftest import Filled

NO_BLOBS = {
    "adapter_file.facts_sha256",
    "adapter_look.cover_sha256",
    "adapter_version.file_tensor_sha256",
    "adapter_version.tensor_sha256",
    "blob_check.sha256",
    "erased_hash.sha256",
    "image.sha256",
    "image_look.sha256",
    "image_measure.clean_sha256",
    "login_session.token_sha256",
    "invitation.token_sha256",
    "access_token.token_sha256",
    "source_user.sha256",
    "thumbnail.sha256",
}
BLOBS = {
    "adapter.cover_sha256",
    "adapter.imported_cover_sha256",
    "adapter_file.sha256",
    "adapter_version.sha256",
    "checkpoint.sha256",
    "image.clean_sha256",
    "image.thumbnail_sha256",
    "recipe.source_sha256",
    "render.source_sha256",
    "render_image.sha256",
    "render_source.sha256",
    "sample.sha256",
    "thumbnail.large_sha256",
    "thumbnail.small_sha256",
}


def test_every_file_of_a_filled_registry_is_needed_by_a_row(filled: Filled) -> None:
    with filled.database.read() as session:
        found = list(list_references(session))
    assert {one.sha256 for one in found} == set(filled.blobs.values())
    sizes = {one.sha256: one.size for one in found if one.size is not None}
    known = ("weights", "download", "state")
    assert sizes == {filled.blobs[words]: len(words) for words in known}


def test_a_file_is_named_by_what_it_is_and_what_to_do(folder: Filled) -> None:
    expected = {
        "weights": "The file with the weights of version 1 of “Ink” is damaged. Restore it from a "
        "backup, import or train the adapter again, or delete it.",
        "image": "The file with the image “fox.png” of the dataset “Toys” is damaged. Restore it "
        "from a backup, upload the image again, or delete it.",
        "state": "The file with the checkpoint at step 4 of the run “Foxes” is damaged. Restore it "
        "from a backup; the run continues from an older checkpoint.",
        "download": "The file with the download (kohya, fp16) of version 1 of “Ink” is damaged. It "
        "is made again when it is needed.",
    }
    with folder.database.read() as session:
        for words, sentence in expected.items():
            (bad,) = describe(session, {folder.blobs[words]: FileProblem.DAMAGED})
            assert bad.sentence == sentence
        (unknown,) = describe(session, {"0" * 64: FileProblem.DAMAGED})
    assert unknown.sentence == "The stored file 000000000000… is damaged; nothing refers to it."


def test_many_files_are_found_as_a_few_are(folder: Filled) -> None:
    with folder.database.read() as session:
        others = {f"{number:064x}" for number in range(600)}
        found = {one.sha256 for one in list_references(session, {*folder.blobs.values(), *others})}
        assert found == set(folder.blobs.values())
        assert list(list_references(session, [])) == []


def test_every_column_of_a_hash_is_known_to_name_a_file_or_none() -> None:
    """A new column belongs into `references` if it names a stored file, and into a list here."""
    found = {
        f"{table.name}.{column.name}"
        for table in SQLModel.metadata.sorted_tables
        for column in table.columns
        if column.name.endswith("sha256")
    }
    assert found == BLOBS | NO_BLOBS
