import errno
import hashlib
import io
import json
import os
import random
import tempfile
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest
from PIL import Image

from app.registry.datasets.captions import CaptionFromFile
from app.registry.datasets.intake import IntakeResult, take_in
from app.registry.datasets.sent_files.pairing import PairedCaptions
from app.registry.errors import StorageFullError
from app.registry.images.decoder import ImageDecoder
from app.registry.storage.folder import LocalBlobStore
from app.registry.uploads import UploadedFile
from tests.app.datasets.corpus import (
    HTML,
    SVG,
    animated,
    archive,
    crowded_archive,
    encode,
    encrypted,
    huge_png,
    photo,
    picture,
    rotated_photo,
    sixteen_bit_png,
    symlink,
)

RED, BLUE = picture(color="red"), picture(color="blue")


class Upload:
    """Sends files to `take_in` and keeps what it needs."""

    def __init__(self, decoder: ImageDecoder, store: LocalBlobStore, scratch: Path) -> None:
        self.decoder = decoder
        self.store = store
        self.scratch = scratch

    def __call__(self, files: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> IntakeResult:
        pairs = files.items() if isinstance(files, Mapping) else files
        uploads = [UploadedFile(name, io.BytesIO(data)) for name, data in pairs]
        return take_in(uploads, decoder=self.decoder, store=self.store, scratch=self.scratch)


@pytest.fixture
def upload(decoder: ImageDecoder, store: LocalBlobStore, tmp_path: Path) -> Iterator[Upload]:
    upload = Upload(decoder, store, tmp_path / "scratch")
    yield upload
    assert list(upload.scratch.glob("*")) == []


def captions(result: IntakeResult) -> dict[str, str | None]:
    return {image.filename: image.caption for image in result.accepted}


def test_a_picture_is_stored_clean_with_a_thumbnail(
    upload: Upload, store: LocalBlobStore, tmp_path: Path
) -> None:
    data = rotated_photo()
    (image,) = upload({"photo.jpg": data}).accepted

    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert (image.filename, image.size_bytes) == ("photo.jpg", len(data))
    assert (image.width, image.height) == (32, 64)
    assert image.note == "Rotated upright."
    with Image.open(store.local_path(image.clean_sha256, tmp_path)) as clean:
        assert (clean.format, clean.size) == ("PNG", (32, 64))
    with Image.open(store.local_path(image.thumbnail_sha256, tmp_path)) as thumbnail:
        assert thumbnail.format == "WEBP"
    # the upload itself, with its EXIF, is not kept
    assert not store.exists(image.sha256)


def test_files_may_come_as_paths_and_stay_where_they_are(upload: Upload, tmp_path: Path) -> None:
    source, packed = tmp_path / "a.png", tmp_path / "b.zip"
    source.write_bytes(RED)
    packed.write_bytes(archive({"b.png": BLUE}))
    files = [UploadedFile("a.png", source), UploadedFile("b.zip", packed)]

    result = take_in(files, decoder=upload.decoder, store=upload.store, scratch=upload.scratch)

    assert [image.filename for image in result.accepted] == ["a.png", "b.png"]
    assert source.read_bytes() == RED


def test_a_spooled_file_is_read_from_its_start(upload: Upload) -> None:
    with tempfile.SpooledTemporaryFile(max_size=10) as spooled:
        spooled.write(RED)
        uploads = [UploadedFile("a.png", spooled)]
        result = take_in(
            uploads, decoder=upload.decoder, store=upload.store, scratch=upload.scratch
        )
    assert len(result.accepted) == 1


def test_bad_files_are_named_with_their_reasons_and_cost_only_themselves(upload: Upload) -> None:
    result = upload(
        [
            ("good.png", RED),
            ("words.png", b"just words"),
            ("cut.jpg", photo()[:1500]),
            ("empty.png", b""),
            ("drawing.png", SVG),
            ("page.png", HTML),
            ("huge.png", huge_png()),
            ("moving.gif", animated("GIF")),
            ("moving.png", animated("PNG")),
            ("moving.webp", animated("WEBP")),
            ("heavy.jpg", photo() + bytes(60_000_001)),
            ("packed.png", archive({"a.png": RED})),
            ("broken.zip", b"PK\3\4 and nothing more"),
            ("README.md", b"# words"),
            ("../../climbs.png", BLUE),
            ("gray16.png", sixteen_bit_png(0, 30_000)),
            ("print.jpg", encode(Image.new("CMYK", (16, 16), (255, 0, 0, 0)), "JPEG")),
            ("palette.png", encode(Image.new("RGB", (16, 16), "pink").quantize(2))),
        ]
    )

    assert [image.filename for image in result.accepted] == [
        "good.png",
        "climbs.png",
        "gray16.png",
        "print.jpg",
        "palette.png",
    ]
    reasons = dict(result.rejected)
    assert len(reasons) == len(result.rejected) == 13
    assert "not an image" in reasons["words.png"]
    assert "truncated" in reasons["cut.jpg"]
    assert "0 bytes" in reasons["empty.png"]
    assert "SVG" in reasons["drawing.png"]
    assert "HTML" in reasons["page.png"]
    assert "20,000 × 20,000" in reasons["huge.png"]
    assert "GIF" in reasons["moving.gif"]
    assert "animated" in reasons["moving.png"]
    assert "animated" in reasons["moving.webp"]
    assert "larger than 60 MB" in reasons["heavy.jpg"]
    assert "zip archive" in reasons["packed.png"]
    assert "damaged" in reasons["broken.zip"]
    assert "not an image" in reasons["README.md"]


def test_the_same_bytes_twice_are_one_picture(upload: Upload, store: LocalBlobStore) -> None:
    result = upload({"a.png": RED, "copy of a.png": RED, "more.zip": archive({"c.png": RED})})

    assert [image.filename for image in result.accepted] == ["a.png"]
    repeated = [(name, first.filename) for name, first in result.repeated]
    assert repeated == [("copy of a.png", "a.png"), ("c.png", "a.png")]
    assert len(list(store.list())) == 2


def test_what_systems_leave_in_folders_is_passed_over(upload: Upload) -> None:
    result = upload({".DS_Store": b"x", "._a.png": b"x", "Thumbs.db": b"x", "a.png": RED})

    assert [image.filename for image in result.accepted] == ["a.png"]
    assert result.rejected == []


def test_captions_find_their_pictures_in_any_order(upload: Upload) -> None:
    result = upload(
        [
            ("a.txt", "  a red\nfield ".encode("utf-16")),
            ("a.png", RED),
            ("B.PNG", BLUE),
            ("b.caption", b"a blue field"),
            ("c.png", picture(color="lime")),
        ]
    )

    assert captions(result) == {"a.png": "a red field", "B.PNG": "a blue field", "c.png": None}
    assert result.rejected == []


def test_metadata_gives_captions_to_pictures_beside_and_below(upload: Upload) -> None:
    metadata = "\n".join(
        [
            json.dumps({"file_name": "a.png", "text": "red"}),
            json.dumps({"file_name": "sub/b.png", "text": "blue"}),
            "oops",
        ]
    ).encode()
    packed = archive({"set/metadata.jsonl": metadata, "set/a.png": RED, "set/sub/b.png": BLUE})

    result = upload({"set.zip": packed})

    assert captions(result) == {"a.png": "red", "b.png": "blue"}
    assert result.rejected == [("metadata.jsonl", "Line 3: This is not JSON.")]


def test_equal_names_in_different_folders_keep_their_own_captions(upload: Upload) -> None:
    packed = archive(
        {"cats/1.png": RED, "dogs/1.png": BLUE, "cats/1.txt": b"a cat", "dogs/1.txt": b"a dog"}
    )
    result = upload({"pets.zip": packed})

    assert [(image.filename, image.caption) for image in result.accepted] == [
        ("1.png", "a cat"),
        ("1.png", "a dog"),
    ]


def test_captions_in_another_folder_find_the_only_picture_of_that_name(upload: Upload) -> None:
    result = upload(
        {"a.png": RED, "texts.zip": archive({"captions/a.txt": b"red", "captions/z.txt": b"?"})}
    )

    assert captions(result) == {"a.png": "red"}
    assert result.captions_without_image == {"z": PairedCaptions(CaptionFromFile("?", "z.txt"))}


def test_a_caption_that_could_mean_two_pictures_is_refused(upload: Upload) -> None:
    packed = archive({"x/1.png": RED, "y/1.png": BLUE, "texts/1.txt": b"which?"})
    result = upload({"two.zip": packed})

    assert [image.caption for image in result.accepted] == [None, None]
    assert result.rejected == [
        ("1.txt", "More than one image is named “1”. Put the caption next to its image.")
    ]


def test_of_two_captions_the_text_file_is_used_and_the_other_handed_on(upload: Upload) -> None:
    line = json.dumps({"file_name": "a.png", "text": "three"})
    files = {"metadata.jsonl": line.encode(), "a.png": RED, "a.caption": b"two", "a.txt": b"one"}
    (image,) = upload({"both.zip": archive(files)}).accepted

    assert (image.caption, image.caption_file) == ("one", "a.txt")
    assert image.unused_captions == (("two", "a.caption"), ("three", "metadata.jsonl"))


def test_captions_without_a_picture_are_handed_back_by_stem(upload: Upload) -> None:
    result = upload({"Later.txt": "schön".encode(), "empty.txt": b" \n"})

    assert result.accepted == []
    assert result.captions_without_image == {
        "Later": PairedCaptions(CaptionFromFile("schön", "Later.txt"))
    }
    assert result.rejected == []


def test_a_caption_of_10000_characters_is_refused_by_name_and_its_picture_taken(
    upload: Upload,
) -> None:
    result = upload({"a.png": RED, "a.txt": b"x" * 10_000})

    assert captions(result) == {"a.png": None}
    ((filename, reason),) = result.rejected
    assert filename == "a.txt"
    assert "10,000 characters; at most 2,000" in reason


def test_the_caption_of_a_refused_picture_is_refused_with_it(upload: Upload) -> None:
    result = upload({"a.png": SVG, "a.txt": b"a drawing"})

    assert result.captions_without_image == {}
    assert ("a.txt", "Its image “a” was refused.") in result.rejected


def test_bad_members_of_a_zip_are_named_and_the_others_taken(upload: Upload) -> None:
    packed = archive(
        [
            ("../../a.png", RED),
            symlink("link.png", "/etc/passwd"),
            ("inner.zip", archive({"x.png": RED})),
            ("bomb.png", bytes(20 << 20)),
            ("page.png", HTML),
            ("a.txt", b"red"),
            ("b.png", BLUE),
        ]
    )
    result = upload({"mixed.zip": packed})

    assert captions(result) == {"a.png": "red", "b.png": None}
    reasons = dict(result.rejected)
    assert set(reasons) == {"link.png", "inner.zip", "bomb.png", "page.png"}
    assert "link" in reasons["link.png"]
    assert "inside an archive" in reasons["inner.zip"]
    assert "100 times" in reasons["bomb.png"]
    assert "HTML" in reasons["page.png"]


def test_a_crowded_zip_is_refused_as_one(upload: Upload) -> None:
    result = upload({"crowd.zip": crowded_archive(100_000), "a.png": RED})

    assert captions(result) == {"a.png": None}
    ((filename, reason),) = result.rejected
    assert filename == "crowd.zip"
    assert "more than 12,000 entries" in reason


def test_an_encrypted_zip_names_its_files(upload: Upload) -> None:
    result = upload({"secret.zip": encrypted(archive({"a.png": RED}))})

    ((filename, reason),) = result.rejected
    assert filename == "a.png"
    assert "encrypted" in reason


def test_a_full_disk_stops_the_upload_and_leaves_no_scratch(
    upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError, match="disk is full"):
        upload({f"{side}.png": picture(size=(side, 20)) for side in range(20, 40)})
    assert list(upload.store.list()) == []


class _Generated(io.RawIOBase):
    """A file whose bytes are made when they are read, so that the test itself stays flat."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._file: IO[bytes] | None = None

    def seek(self, offset: int, whence: int = 0) -> int:
        noise = random.Random(self._number).randbytes(96 * 96 * 3)
        self._file = io.BytesIO(encode(Image.frombytes("RGB", (96, 96), noise)))
        return 0

    def read(self, size: int | None = -1) -> bytes:
        assert self._file is not None
        chunk = self._file.read(size)
        if not chunk:
            self._file = None
        return chunk


@pytest.mark.slow
def test_150_pictures_take_no_more_memory_than_a_few(upload: Upload, store: LocalBlobStore) -> None:
    def peak(numbers: range) -> int:
        files = [UploadedFile(f"{number}.png", _Generated(number)) for number in numbers]
        tracemalloc.start()
        result = take_in(files, decoder=upload.decoder, store=store, scratch=upload.scratch)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(result.accepted) == len(numbers)
        return most

    few = peak(range(20))
    many = peak(range(20, 170))

    assert many < few + 150 * 10_000  # facts of each (4 KB), not its pixels (27 KB)
