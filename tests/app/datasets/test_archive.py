import io
import random
import struct
import tracemalloc
import zipfile
from collections.abc import Sequence

import pytest

from app.registry import archive as archives
from app.registry.archive import Archive, ArchiveRefused, MemberRefused
from tests.app.datasets.corpus import (
    archive,
    central_directory,
    crowded_archive,
    encrypted,
    patched,
    picture,
    symlink,
)


def names(packed: bytes) -> list[str]:
    with Archive(io.BytesIO(packed)) as opened:
        return [member.filename for member in opened.members()]


def read(packed: bytes, index: int = 0) -> bytes:
    with Archive(io.BytesIO(packed)) as opened:
        return b"".join(opened.read(list(opened.members())[index]))


def refusal(packed: bytes, index: int = 0) -> str:
    with pytest.raises(MemberRefused) as caught:
        read(packed, index)
    return caught.value.detail


def test_it_gives_files_with_their_folders() -> None:
    packed = archive({"cats/a.png": b"cat", "cats/a.txt": b"a cat", "b.png": b"b"})

    with Archive(io.BytesIO(packed)) as opened:
        members = list(opened.members())
        assert [(member.folder, member.filename) for member in members] == [
            ("cats", "a.png"),
            ("cats", "a.txt"),
            ("", "b.png"),
        ]
        assert b"".join(opened.read(members[0])) == b"cat"


def test_it_passes_over_folders_and_clutter() -> None:
    clutter: Sequence[tuple[str, bytes]] = [
        ("folder/", b""),
        ("__MACOSX/._a.png", b"x"),
        (".DS_Store", b"x"),
        ("folder/.hidden.png", b"x"),
        (".git/a.png", b"x"),
        ("Thumbs.db", b"x"),
        ("folder/a.png", b"x"),
    ]
    assert names(archive(clutter)) == ["a.png"]


def test_paths_that_climb_are_only_names() -> None:
    packed = archive({"../../../etc/cron.d/a.png": b"x", "/abs/b.png": b"x", "..\\c.png": b"x"})

    assert names(packed) == ["a.png", "b.png", "c.png"]


def test_100000_entries_are_refused_before_the_list_is_read() -> None:
    packed = crowded_archive(100_000)
    tracemalloc.start()
    with pytest.raises(ArchiveRefused, match="more than 12,000 entries"):
        Archive(io.BytesIO(packed))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < len(packed) + 2_000_000  # BytesIO's copy and the end of the file; no list


@pytest.mark.parametrize("entries", [12_001, 40_000])
def test_an_end_record_that_hides_entries_is_refused_too(entries: int) -> None:
    with pytest.raises(ArchiveRefused, match="more than 12,000 entries"):
        Archive(io.BytesIO(crowded_archive(entries, confess=False)))


def test_12000_entries_are_read() -> None:
    assert len(names(crowded_archive(12_000))) == 12_000


def test_zip64_archives_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    packed = archive({"a.png": b"a", "b.png": b"b"})
    assert b"PK\6\6" in packed
    assert names(packed) == ["a.png", "b.png"]

    end = packed.rindex(b"PK\6\6")
    crowded = patched(packed, end + 24, struct.pack("<QQ", 10**6, 10**6))
    with pytest.raises(ArchiveRefused, match="more than 12,000 entries"):
        Archive(io.BytesIO(crowded))


def test_an_archive_with_a_comment_is_read() -> None:
    buffer = io.BytesIO(archive({"a.png": b"a"}))
    with zipfile.ZipFile(buffer, "a") as packed:
        packed.comment = b"made by hand"
    assert names(buffer.getvalue()) == ["a.png"]


@pytest.mark.parametrize(
    "packed",
    [b"no archive", picture(), archive({"a.png": picture()})[:-30], b"PK\5\6", b"PK\3\4" * 99],
)
def test_what_is_no_archive_or_cut_off_is_refused(packed: bytes) -> None:
    with pytest.raises(ArchiveRefused, match="damaged or truncated"):
        Archive(io.BytesIO(packed))


def test_an_empty_file_is_refused_as_such() -> None:
    with pytest.raises(ArchiveRefused, match=r"empty \(0 bytes\)"):
        Archive(io.BytesIO(b""))


def test_an_archive_without_files_has_no_members() -> None:
    assert names(archive({})) == []


def test_encrypted_files_are_refused() -> None:
    assert "encrypted" in refusal(encrypted(archive({"a.png": b"secret"})))


def test_links_are_refused() -> None:
    assert "link" in refusal(archive([symlink("a.png", "/etc/passwd")]))


@pytest.mark.parametrize("name", ["inner.zip", "a/b.TAR", "c.tar.gz", "d.7z"])
def test_archives_inside_are_refused(name: str) -> None:
    assert "archive inside an archive" in refusal(archive({name: archive({"a.png": b"x"})}))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_with_large_memories_are_refused(compression: int) -> None:
    assert "unsupported compression" in refusal(
        archive({"a.png": b"x" * 99}, compression=compression)
    )


def test_a_wrong_checksum_is_refused() -> None:
    packed = archive({"a.png": b"these are the bytes"}, compression=zipfile.ZIP_STORED)
    place = packed.index(b"these")
    assert "checksum" in refusal(patched(packed, place, b"those"))


def test_a_broken_stream_is_refused() -> None:
    packed = archive({"a.png": bytes(range(256)) * 99})
    assert "damaged" in refusal(patched(packed, 36, b"\xff" * 40))


def test_a_bomb_stops_soon_after_the_ratio_is_seen() -> None:
    packed = archive({"bomb.png": bytes(49 << 20)})
    assert len(packed) < 60_000
    sizes: list[int] = []
    with Archive(io.BytesIO(packed)) as opened:
        (member,) = opened.members()
        with pytest.raises(MemberRefused, match="100 times its size"):
            sizes.extend(map(len, opened.read(member)))

    assert sum(sizes) <= 6 << 20


def test_a_small_plain_file_may_have_any_ratio() -> None:
    assert len(read(archive({"plain.png": bytes(1 << 20)}))) == 1 << 20


def test_a_file_that_says_it_is_too_large_is_refused_unread() -> None:
    assert "larger than 60 MB" in refusal(archive({"a.png": bytes(60_000_001)}))


def test_a_file_larger_than_its_header_gives_the_size_in_the_header() -> None:
    packed = archive({"a.png": bytes(30 << 20)})
    record = central_directory(packed)
    lying = patched(packed, record + 24, struct.pack("<L", 1_000))

    assert "checksum or size is wrong" in refusal(lying)


def test_all_files_together_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 5_000_000)
    half = random.Random(0).randbytes(1 << 20)
    packed = archive({f"{number}.png": half + bytes(1 << 20) for number in range(3)})
    with Archive(io.BytesIO(packed)) as opened:
        first, second, third = opened.members()
        assert len(b"".join(opened.read(first))) == 2 << 20
        assert len(b"".join(opened.read(second))) == 2 << 20
        with pytest.raises(ArchiveRefused, match="unpacks to more than 5 MB"):
            b"".join(opened.read(third))


def test_an_archive_without_compression_may_be_of_any_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", 5_000_000)
    files = {f"{number}.png": bytes(2 << 20) for number in range(4)}
    assert len(read(archive(files, compression=zipfile.ZIP_STORED))) == 2 << 20
    with Archive(io.BytesIO(archive(files, compression=zipfile.ZIP_STORED))) as opened:
        assert sum(len(b"".join(opened.read(one))) for one in opened.members()) == 8 << 20


def test_overlapping_files_cannot_unpack_without_end() -> None:
    # two directory records on the same bytes, the trick of bombs that evade ratios
    packed = archive({"a.png": b"x" * 500, "b.png": b"x" * 500})
    first = central_directory(packed)
    second = packed.index(b"PK\1\2", first + 4)
    twice = patched(packed, second + 42, packed[first + 42 : first + 46])

    assert "damaged" in refusal(twice, 1)
