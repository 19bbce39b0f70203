import random

import pytest

from tools.starter.artwork import BACKGROUNDS, ArtworkSet, ArtworkSubject
from tools.starter.captions import CAPTION_WORDS, Look, write_caption
from worker.core.starter import prompt_words

FOX = ArtworkSubject("fox", ("animal",), {})
TREE = ArtworkSubject("oak tree", ("green",), {}, plain_names=("tree",), only_here=("green",))


def captions(
    subject: ArtworkSubject, ground: str, look: Look, *, is_default: bool = True
) -> list[str]:
    """300 captions of a drawing of Noto's."""
    rng, hand = random.Random(0), ArtworkSet.NOTO
    return [
        write_caption(subject, hand, ground, look, is_default=is_default, rng=rng)
        for _ in range(300)
    ]


def test_captions_name_the_subject_and_every_ground_but_white() -> None:
    written = captions(FOX, "blue", Look.PLAIN)
    assert all("fox" in text and "on a blue background" in text for text in written)
    assert 15 < sum("animal" in text for text in written) < 70
    white = captions(FOX, "white", Look.PLAIN)
    assert 20 < sum("white background" in text for text in white) < 80


@pytest.mark.parametrize("look", Look)
def test_a_caption_without_a_style_means_the_default_set(look: Look) -> None:
    bare = sum("noto style" not in text for text in captions(FOX, "white", look))
    assert 150 < bare < 250
    named = captions(FOX, "white", look, is_default=False)
    assert all("noto style" in text for text in named)


def test_a_plain_name_or_a_keyword_of_its_own_can_stand_alone() -> None:
    written = captions(TREE, "white", Look.PLAIN)
    assert "tree" in written
    assert "green" in written
    assert any("oak tree" in text for text in written)


@pytest.mark.parametrize(
    ("look", "words"),
    [
        (Look.LINES, ("line drawing", "outline")),
        (Look.TWO_TONE, ("black and white",)),
        (Look.OUTLINED, ("black outlines", "cartoon")),
        (Look.LIGHT_OUTLINES, ("white outlines",)),
        (Look.SILHOUETTE, ("silhouette",)),
    ],
)
def test_captions_of_a_look_say_so(look: Look, words: tuple[str, ...]) -> None:
    written = captions(FOX, "black", look)
    assert all(any(word in text for word in words) for text in written)
    assert any("a fox" in text for text in written)


def test_the_product_knows_every_word_of_the_captions() -> None:
    words = CAPTION_WORDS | set(BACKGROUNDS) | {hand.value for hand in ArtworkSet}
    assert words <= prompt_words.CAPTION_WORDS | prompt_words.FUNCTION_WORDS
