from __future__ import annotations

import pytest

from worker.core.eyes.vocabulary import Vocabulary, build_vocabulary

NAMES = (
    "cat",
    "cat face",
    "red apple",
    "automobile",
    "teddy bear",
    "bear",
    "lion",
    "glass of milk",
)
ALIASES = ((), (), ("apple",), ("car", "red car"), (), (), (), ())
KEYWORDS = (
    ("animal", "pet"),
    ("animal", "cat"),
    ("fruit", "red"),
    ("vehicle",),
    ("plaything",),
    ("animal",),
    ("animal", "picture"),
    ("drink",),
)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    plain_names = {
        "auto": "automobile",
        "plaything": "teddy bear",
        "vehicle": "lion",
        "sofa": "couch",
    }
    return build_vocabulary(NAMES, ALIASES, KEYWORDS, plain_names)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("bear", ["bear"]),
        ("A Teddy Bear", ["teddy bear"]),
        ("brown bear on a red background", ["bear"]),
        ("castles and cats", ["cat", "cat face"]),
        ("cat", ["cat", "cat face"]),
        ("cat face", ["cat face"]),
        ("apple, chalkboard style", ["red apple"]),
        ("chalkboard style, apple", ["red apple"]),
        ("a drawing of two red cars in the rain", ["automobile"]),
        ("glass of milk", ["glass of milk"]),
        ("vehicle", ["lion"]),
        ("plaything", ["teddy bear"]),
        ("old auto", ["automobile"]),
        ("animals", ["cat", "cat face", "bear", "lion"]),
    ],
)
def test_it_finds_the_subject(vocabulary: Vocabulary, text: str, names: list[str]) -> None:
    assert [vocabulary.names[index] for index in vocabulary.find(text)] == names


@pytest.mark.parametrize(
    "text",
    [
        "lighthouse",
        "sofa",
        "cat lighthouse",
        "a picture",
        "a lighthouse with a cat",
        "Leuchtturm",
        "灯台",
        ", ,",
        "",
    ],
)
def test_it_does_not_know_a_text_by_words_beside_its_subject(
    vocabulary: Vocabulary, text: str
) -> None:
    assert vocabulary.find(text) == ()


def test_a_very_long_text_is_searched_quickly(vocabulary: Vocabulary) -> None:
    assert vocabulary.find("lighthouse " * 5000) == ()
    assert vocabulary.find("lighthouse " * 5000 + "cat") == (0, 1)
