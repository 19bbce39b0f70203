import json

import pytest

from app.registry.datasets.captions import (
    CaptionRefused,
    clean_caption,
    decode_text,
    is_caption,
    pairing_stem,
    read_caption,
    stem_of,
)
from app.registry.datasets.sent_files.metadata_lines import FileCaption, is_metadata, read_metadata
from app.registry.file_names import clean_filename, folder_of

WORDS = "Käse — a naïve café 🧀"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_is_read_in_unicode_encodings(encoding: str) -> None:
    assert read_caption(WORDS.encode(encoding)) == WORDS


def test_text_that_is_not_unicode_is_read_as_latin() -> None:
    assert read_caption("Käse “fein”".encode("cp1252")) == "Käse “fein”"
    assert read_caption(b"\x81 \xe9") == "é"  # no cp1252 either; \x81 is a control


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\0\0\0\rIHDR", b"\0" * 20, b"\xff\xfe\0\xd8\0"])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(CaptionRefused, match="not text"):
        decode_text(data)


def test_a_caption_is_one_line_of_nfc_without_controls() -> None:
    assert (
        clean_caption("  a\u0308 dog\r\n\tin\0 the\x1b[31m  rain\x07 ") == "ä dog in the[31m rain"
    )


def test_a_caption_keeps_joined_emoji_and_loses_lone_surrogates() -> None:
    assert clean_caption("👩‍🎨 \ud800paints") == "👩‍🎨 paints"


def test_a_caption_of_2000_characters_fits() -> None:
    assert len(clean_caption("x" * 2_000)) == 2_000


def test_a_caption_of_10000_characters_is_refused_with_its_length() -> None:
    with pytest.raises(CaptionRefused, match="has 10,000 characters; at most 2,000 are allowed"):
        read_caption(b"x" * 10_000)


def test_a_file_of_megabytes_is_no_caption() -> None:
    with pytest.raises(CaptionRefused, match="larger than 2 MB"):
        read_caption(b"x" * 2_000_001)


def test_metadata_gives_a_caption_a_line() -> None:
    lines = [
        {"file_name": "a.png", "text": "one"},
        {"file_name": "train/b.png", "caption": "two"},
    ]
    data = "\n\n".join(json.dumps(line) for line in lines).encode("utf-8-sig")

    assert list(read_metadata(data)) == [
        FileCaption("a.png", "one"),
        FileCaption("b.png", "two", "train"),
    ]


def test_bad_lines_of_metadata_are_named_and_the_others_kept() -> None:
    data = "\n".join(
        [
            "{not json",
            '{"file_name": "a.png", "text": "good"}',
            '{"text": "whose?"}',
            '{"file_name": "b.png", "text": 7}',
            json.dumps({"file_name": "c.png", "text": "x" * 3_000}),
            '["a.png"]',
            "[" * 100_000,
        ]
    ).encode()
    found = list(read_metadata(data))

    assert found[1] == FileCaption("a.png", "good")
    problems = [line for line in found if isinstance(line, str)]
    assert problems[0] == "Line 1: This is not JSON."
    assert problems[1] == 'Line 3: It has no "file_name".'
    assert problems[2] == 'Line 4: It has no "text".'
    assert problems[3].startswith("Line 5: The caption has 3,000 characters")
    assert problems[4] == 'Line 6: It has no "file_name".'
    assert problems[5] == "Line 7: This is not JSON."


def test_metadata_that_is_no_text_or_too_much_is_one_sentence() -> None:
    assert list(read_metadata(b"\0\0\0\0")) == ["The file is not text. Save it as UTF-8."]
    assert list(read_metadata(b" " * 60_000_001)) == ["The file is larger than 60 MB; split it."]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("cat.png", "cat.png"),
        ("../../etc/passwd", "passwd"),
        ("C:\\pictures\\cat.png", "cat.png"),
        ("/absolute/cat.png", "cat.png"),
        ("a\0b\x1b\n.png", "ab.png"),
        ("cafe\u0301.png", "café.png"),
        ("evil\u202egnp.exe", "evilgnp.exe"),
        ("\ud83dcat.png", "cat.png"),
        ("", "unnamed"),
        ("..", "unnamed"),
        ("a/b/", "unnamed"),
        (" cat.png ", "cat.png"),
    ],
)
def test_file_names_are_for_showing_never_paths(sent: str, shown: str) -> None:
    assert clean_filename(sent) == shown


def test_long_file_names_keep_their_suffix() -> None:
    name = clean_filename("x" * 500 + ".png")
    assert len(name) == 200
    assert name.endswith("x….png")  # what is cut says so
    assert clean_filename("y" * 500) == "y" * 199 + "…"


def test_folders_are_only_text() -> None:
    assert folder_of("a/b/c.png") == "a/b"
    assert folder_of("../../c.png") == ""
    assert folder_of("/c.png") == ""
    assert folder_of("a\\c.png") == "a"


def test_stems_pair_a_caption_with_its_picture() -> None:
    assert stem_of("a.b.png") == "a.b"
    assert stem_of("noext") == "noext"
    assert stem_of(".png") == ".png"
    assert pairing_stem("a.txt") == "a"
    assert pairing_stem("a.b.caption") == "a.b"
    assert pairing_stem("a.PNG.txt") == "a"


def test_caption_files_are_known_by_their_names() -> None:
    assert is_caption("A.TXT")
    assert is_caption("a.caption")
    assert not is_caption("a.png")
    assert is_metadata("Metadata.JSONL")
    assert not is_metadata("other.jsonl")
