"""Exports that come back: what is restored, what is recognized, and what is not believed."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlmodel import col, select

from app.registry.datasets import service, uploads
from app.registry.datasets.image_captions.changes import (
    CaptionChange,
    change_caption,
    remove_caption,
)
from app.registry.datasets.transfer.exporting import Contents, dataset_contents, export_chunks
from app.registry.datasets.uploads import UploadCanceled, UploadOutcome, UploadProgress
from app.registry.state import AppState
from app.registry.tables.datasets import CaptionRevision, Dataset, Image, ImageCaption
from app.registry.uploads import UploadedFile
from tests.app.datasets.corpus import archive
from worker.core.words import CaptionKind

Png = Callable[..., bytes]


def make_dataset(state: AppState, name: str, word: str | None = None) -> Dataset:
    with state.database.write() as session:
        return service.create_dataset(session, name, trigger_word=word)


def send(
    state: AppState, dataset: Dataset, files: Mapping[str, bytes], **options: Any
) -> UploadOutcome:
    sent = [UploadedFile(name, io.BytesIO(data)) for name, data in files.items()]
    return uploads.receive(state, dataset.key, sent, **options)


def images_of(state: AppState, dataset: Dataset) -> list[Image]:
    with state.database.read() as session:
        return service.list_images(session, dataset.key)


def contents_of(state: AppState, dataset: Dataset) -> Contents:
    with state.database.snapshot() as session:
        return dataset_contents(session, dataset.key)


def export(state: AppState, dataset: Dataset) -> bytes:
    return b"".join(export_chunks(state.store, contents_of(state, dataset)))


def repacked(packed: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The archive with changed files, as somebody else's program packs it."""
    with zipfile.ZipFile(io.BytesIO(packed)) as old:
        files = {name: old.read(name) for name in old.namelist()}
    change(files)
    return archive(files)


def reasons(outcome: UploadOutcome) -> dict[str, str]:
    return {one.filename: one.reason for one in outcome.rejected}


@pytest.fixture
def foxes(state: AppState, png: Png) -> Dataset:
    """Two images of one name, the first with all that can be said about an image."""
    dataset = make_dataset(state, "Foxes", "foxish")
    send(state, dataset, {"fox.png": png(1), "fox.txt": b"a fox"})
    send(state, dataset, {"Fox.jpg": png(2)})
    with state.database.write() as session:
        image = service.list_images(session, dataset.key)[0]
        image.repeats, image.never_flip, image.set_aside = 3, True, True
        image.focus_x, image.focus_y, image.caption_share = 0.25, 0.5, 2
        session.add(ImageCaption(image_id=image.key, kind="tags", caption="fox, red", version=1))
    return dataset


def without_time(contents: Contents) -> list[dict[str, Any]]:
    return [{k: v for k, v in vars(image).items() if k != "time"} for image in contents.images]


def test_an_export_restores_everything(state: AppState, foxes: Dataset) -> None:
    other = make_dataset(state, "Other")
    outcome = send(state, other, {"foxes.zip": export(state, foxes)})
    assert outcome.rejected == []
    assert [added.duplicate for added in outcome.accepted] == [False, False]
    assert without_time(contents_of(state, other)) == without_time(contents_of(state, foxes))
    with state.database.read() as session:
        assert service.get_dataset(session, other.key).trigger_word == "foxish"
        first = service.list_images(session, other.key)[0]
        written = session.exec(
            select(CaptionRevision).where(CaptionRevision.image_id == first.key)
        ).all()
    assert {(row.kind, row.caption, row.source_name) for row in written} == {
        ("long", "a fox", "fox.txt"),
        ("tags", "fox, red", "metadata.jsonl"),
    }


def test_its_images_are_recognized_without_decoding_them(
    state: AppState, foxes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = export(state, foxes)
    before = contents_of(state, foxes)
    monkeypatch.setattr(state.decoder, "decode", None)
    outcome = send(state, foxes, {"foxes.zip": packed})
    assert [added.duplicate for added in outcome.accepted] == [True, True]
    assert outcome.rejected == []
    assert contents_of(state, foxes).images == before.images


def test_a_deleted_image_comes_back_as_it_was(state: AppState, foxes: Dataset) -> None:
    packed = export(state, foxes)
    first, _ = images_of(state, foxes)
    with state.database.write() as session:
        service.delete_image(session, first.key)
    outcome = send(state, foxes, {"foxes.zip": packed})
    assert [added.duplicate for added in outcome.accepted] == [False, True]
    assert images_of(state, foxes)[0].key == first.key


def test_a_lost_file_is_stored_again(state: AppState, foxes: Dataset) -> None:
    packed = export(state, foxes)
    first, _ = images_of(state, foxes)
    state.store.delete(first.clean_sha256)
    send(state, foxes, {"foxes.zip": packed})
    assert state.store.exists(first.clean_sha256)


def test_changed_captions_stay_and_those_of_the_file_are_in_the_history(
    state: AppState, foxes: Dataset
) -> None:
    packed = export(state, foxes)
    first, _ = images_of(state, foxes)
    with state.database.write() as session:
        service.caption_image(session, first.key, "a wolf")
        session.exec(  # somebody emptied the history
            CaptionRevision.__table__.delete()  # type: ignore[attr-defined]
        )
    for _ in range(2):  # the second time adds nothing
        outcome = send(state, foxes, {"foxes.zip": packed})
        assert reasons(outcome) == {
            "fox.txt": "The image “fox.png” has another caption, which stays. In its history is "
            "now: “a fox”."
        }
    with state.database.read() as session:
        rows = select(CaptionRevision).order_by(col(CaptionRevision.version))
        written = [row.caption for row in session.exec(rows)]
    assert images_of(state, foxes)[0].caption == "a wolf"
    assert written == ["a fox", "a wolf"]


def change_line(files: dict[str, bytes], number: int, **values: Any) -> None:
    lines = [json.loads(line) for line in files["metadata.jsonl"].splitlines()]
    lines[number] |= values
    files["metadata.jsonl"] = "\n".join(map(json.dumps, lines)).encode()


def test_an_identity_is_believed_only_of_the_image_it_is_about(
    state: AppState, foxes: Dataset, png: Png
) -> None:
    """An export whose image was replaced is another image; so is one that names a wrong hash."""
    old = images_of(state, foxes)

    def forge(files: dict[str, bytes]) -> None:
        files["fox.png"] = png(3)
        change_line(files, 1, sha256=old[0].sha256)

    packed = repacked(export(state, foxes), forge)
    other = make_dataset(state, "Other")
    send(state, other, {"foxes.zip": export(state, foxes)})
    outcome = send(state, other, {"forged.zip": packed})
    assert [added.duplicate for added in outcome.accepted] == [False, True]
    hashes = [image.sha256 for image in images_of(state, other)]
    assert hashes[:2] == [image.sha256 for image in old]
    assert hashes[2] not in hashes[:2]


def test_an_export_without_its_metadata_is_recognized_too(state: AppState, foxes: Dataset) -> None:
    packed = repacked(export(state, foxes), lambda files: files.pop("metadata.jsonl"))
    outcome = send(state, foxes, {"foxes.zip": packed})
    assert [added.duplicate for added in outcome.accepted] == [True, True]


def test_metadata_alone_restores_all_that_it_says_of_images_there(
    state: AppState, foxes: Dataset, png: Png
) -> None:
    with zipfile.ZipFile(io.BytesIO(export(state, foxes))) as packed:
        metadata = packed.read("metadata.jsonl")
    bare = make_dataset(state, "Bare")
    send(state, bare, {"fox.png": png(1), "Fox.jpg": png(2)})
    outcome = send(state, bare, {"metadata.jsonl": metadata})
    assert (len(outcome.captioned), outcome.rejected) == (2, [])
    assert without_time(contents_of(state, bare)) == without_time(contents_of(state, foxes))
    again = send(state, bare, {"metadata.jsonl": metadata})
    assert again.rejected == []
    assert without_time(contents_of(state, bare)) == without_time(contents_of(state, foxes))


def test_metadata_alone_changes_nothing_that_somebody_wrote_or_set(
    state: AppState, foxes: Dataset, png: Png
) -> None:
    with zipfile.ZipFile(io.BytesIO(export(state, foxes))) as packed:
        metadata = packed.read("metadata.jsonl")
    mine = make_dataset(state, "Mine")
    send(state, mine, {"fox.png": png(1), "fox.txt": b"my fox"})
    with state.database.write() as session:
        (image,) = service.list_images(session, mine.key)
        service.change_image(session, image.key, repeats=7)
        service.set_focus(session, image.key, (1, 1))
        change_caption(session, image.key, CaptionKind.TAGS, CaptionChange("mine", 5))
    outcome = send(state, mine, {"metadata.jsonl": metadata})
    assert "another caption, which stays" in reasons(outcome)["metadata.jsonl"]
    (kept,) = contents_of(state, mine).images
    assert [(one.kind, one.caption, one.share) for one in kept.captions] == [
        ("long", "my fox", 1),
        ("tags", "mine", 5),
    ]
    assert (kept.repeats, kept.focus, kept.never_flip) == (7, (1, 1), True)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "removed"])
@pytest.mark.parametrize("names", [["metadata.jsonl"], ["metadata.jsonl", "fox.png"]])
@pytest.mark.parametrize("kinds", [("long", "tags"), ("tags", "short")])
def test_files_fill_the_caption_of_an_image_that_had_another_kind(
    state: AppState, png: Png, kinds: tuple[str, str], names: list[str], *, kept: bool
) -> None:
    mine = make_dataset(state, "Mine")
    send(state, mine, {"fox.png": png(1)})
    with state.database.write() as session:
        (image,) = service.list_images(session, mine.key)
        change_caption(session, image.key, CaptionKind.TAGS, CaptionChange("mine"))
        if not kept:
            remove_caption(session, image.key, CaptionKind.TAGS)
    captions = [{"caption": f"a {kind} fox", "kind": kind} for kind in kinds]
    line = {"file_name": "fox.png", "captions": captions}
    files = {"metadata.jsonl": json.dumps(line).encode(), "fox.png": png(1)}
    outcome = send(state, mine, {name: files[name] for name in names})
    assert outcome.rejected == []
    (found,) = contents_of(state, mine).images
    first = f"a {kinds[0]} fox"
    wanted = {kind: f"a {kind} fox" for kind in kinds}
    if kept:
        wanted = {"long": first, kinds[1]: f"a {kinds[1]} fox"} | {"tags": "mine"}
    assert {one.kind: one.caption for one in found.captions} == wanted
    assert found.captions[0].caption == first


FACTS = {"file_name": "fox.png", "repeats": 3, "focus": [0, 1], "never_flip": True} | {
    "captions": [{"caption": "a fox"}, {"caption": "fox, red", "kind": "tags"}]
}
OTHER = {"sha256": "0" * 64, "clean_sha256": "1" * 64}


@pytest.mark.parametrize(
    ("caption", "line", "kinds", "repeats"),
    [
        ("", {}, ["long", "tags"], 3),
        ("a fox", {}, ["long", "tags"], 3),
        ("a fox", OTHER, ["long", "tags"], 3),
        ("my fox", {}, ["long"], 1),
        ("my fox", OTHER, ["long"], 1),
        ("", OTHER, ["long"], 1),
        ("my fox", {"sha256": None}, ["long", "tags"], 3),  # that of the image, below
        ("my fox", {"clean_sha256": None}, ["long", "tags"], 3),
    ],
)
def test_metadata_alone_sets_nothing_of_another_image_of_the_same_name(
    state: AppState,
    png: Png,
    caption: str,
    line: dict[str, str | None],
    kinds: list[str],
    repeats: int,
) -> None:
    mine = make_dataset(state, "Mine")
    send(state, mine, {"fox.png": png(1), "fox.txt": caption.encode()})
    (image,) = contents_of(state, mine).images
    hashes = {name: given or getattr(image, name) for name, given in line.items()}
    send(state, mine, {"metadata.jsonl": json.dumps(FACTS | hashes).encode()})
    (image,) = contents_of(state, mine).images
    assert [one.kind for one in image.captions] == kinds
    assert image.captions[0].caption == (caption or "a fox")
    assert (image.repeats, image.focus) == (repeats, (0, 1) if repeats == 3 else None)


def test_an_archive_without_files_is_reported(state: AppState, foxes: Dataset) -> None:
    outcome = send(state, foxes, {"empty.zip": archive({})})
    assert reasons(outcome) == {"empty.zip": "The archive has no files."}


def test_an_edited_text_file_counts_more_than_metadata(state: AppState, foxes: Dataset) -> None:
    def edit(files: dict[str, bytes]) -> None:
        files["fox.txt"] = b"a vixen"

    other = make_dataset(state, "Other")
    outcome = send(state, other, {"a.zip": repacked(export(state, foxes), edit)})
    image = contents_of(state, other).images[0]
    assert [caption.caption for caption in image.captions] == ["a vixen", "fox, red"]
    assert reasons(outcome).keys() == {"metadata.jsonl"}
    with state.database.read() as session:
        written = select(CaptionRevision.caption, CaptionRevision.source_name)
        history = set(session.exec(written).all())
    assert {
        ("a vixen", "fox.txt"),
        ("a fox", "metadata.jsonl"),
        ("fox, red", "metadata.jsonl"),
    } <= history


def test_wrong_values_cost_only_themselves(state: AppState, foxes: Dataset) -> None:
    def spoil(files: dict[str, bytes]) -> None:
        change_line(files, 0, repeats=0)
        change_line(files, 1, focus=[2, 0.5], text="still read")

    other = make_dataset(state, "Other")
    outcome = send(state, other, {"a.zip": repacked(export(state, foxes), spoil)})
    assert [one.reason for one in outcome.rejected] == [
        "Line 1: “repeats”: At least 1. Only its caption was read.",
        "Line 2: “focus”: 1 at most. Only its caption was read.",
    ]
    assert [image.caption for image in images_of(state, other)] == ["a fox", "still read"]


def test_names_and_captions_of_an_export_are_cleaned(state: AppState, foxes: Dataset) -> None:
    def spoil(files: dict[str, bytes]) -> None:
        del files["fox.txt"]
        captions = [{"caption": "a\x07 \u202exof", "kind": "long", "share": 1}]
        change_line(files, 0, name="../\u202egnp.exe\x00.png", text="", captions=captions)

    other = make_dataset(state, "Other")
    send(state, other, {"a.zip": repacked(export(state, foxes), spoil)})
    image = images_of(state, other)[0]
    assert (image.filename, image.caption) == ("gnp.exe.png", "a xof")


def test_files_that_an_export_left_out_are_reported(state: AppState, foxes: Dataset) -> None:
    state.store.delete(images_of(state, foxes)[1].clean_sha256)
    other = make_dataset(state, "Other")
    outcome = send(state, other, {"a.zip": export(state, foxes)})
    assert reasons(outcome).keys() == {"Fox-2.png"}
    assert reasons(outcome)["Fox-2.png"].startswith("The export has no such image.")


def test_an_archive_that_was_cut_off_is_refused_and_costs_nothing(
    state: AppState, foxes: Dataset
) -> None:
    packed = export(state, foxes)
    outcome = send(state, foxes, {"foxes.zip": packed[: len(packed) // 2]})
    assert "damaged or truncated" in reasons(outcome)["foxes.zip"]
    assert len(images_of(state, foxes)) == 2


def test_folders_of_kohya_set_repeats(state: AppState, png: Png) -> None:
    dataset = make_dataset(state, "Ink")
    files = {"img/10_ink fox/a.png": png(1), "500_ink/b.png": png(2), "c.png": png(3)}
    outcome = send(state, dataset, {"kohya.zip": archive(files)})
    assert [image.repeats for image in images_of(state, dataset)] == [10, 100, 1]
    assert reasons(outcome) == {
        "b.png (repeats)": "Its folder asks for 500 repeats; 1 to 100 are possible."
    }


def test_progress_counts_every_image_and_a_cancellation_keeps_what_is_done(
    state: AppState, png: Png
) -> None:
    files = {f"{number}.png": png(number) for number in range(5)} | {"bad.png": b"<svg>"}
    seen: list[UploadProgress] = []

    def stop_at(most: int) -> Callable[[UploadProgress], None]:
        def on_image(progress: UploadProgress) -> None:
            seen.append(progress)
            if progress.done == most:
                raise UploadCanceled

        return on_image

    dataset = make_dataset(state, "Boats")
    outcome = send(state, dataset, {"a.zip": archive(files)}, on_image=stop_at(3))
    assert outcome.is_canceled
    assert [image.filename for image in images_of(state, dataset)] == ["0.png", "1.png", "2.png"]
    seen.clear()
    outcome = send(state, dataset, {"a.zip": archive(files)}, on_image=stop_at(0))
    assert [(one.done, one.total) for one in seen] == [(n, 6) for n in range(1, 7)]
    assert [added.duplicate for added in outcome.accepted] == [True] * 3 + [False] * 2


def test_an_image_that_was_sent_twice_keeps_both_captions(state: AppState, png: Png) -> None:
    files = {"a.png": png(1), "a.txt": b"one", "b.png": png(1), "b.txt": b"two"}
    dataset = make_dataset(state, "Boats")
    outcome = send(state, dataset, {"a.zip": archive(files)})
    assert [added.duplicate for added in outcome.accepted] == [False, True]
    assert reasons(outcome).keys() == {"b.txt"}
    with state.database.read() as session:
        assert set(session.exec(select(CaptionRevision.caption)).all()) == {"one", "two"}
    assert images_of(state, dataset)[0].caption == "one"
