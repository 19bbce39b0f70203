"""The rest of a caption from which words are removed."""

from __future__ import annotations

import pytest

from worker.core.captioning.removing import remove_words

LONG = 90_000
REMOVED = [
    # what led to the subject: a trigger word before it stands for itself
    ("a chalk style drawing of a thing", "drawing of", "chalk style, a thing"),
    ("a chalk style drawing of a thing", "style drawing of", "chalk, a thing"),
    ("chalk picture that shows two foxes", "picture that shows", "chalk, two foxes"),
    ("a man with a photo of a fox", "photo of", "a man with a fox"),
    ("a man painting a picture of a fox", "a picture of", "a man painting a fox"),
    # “of” and articles without their noun
    ("watercolor of a fox", "watercolor", "a fox"),
    ("a vector art of the fox with a hat", "vector art", "the fox with a hat"),
    ("a fox in a watercolor", "watercolor", "a fox"),
    ("a fox with a hat in snow", "hat", "a fox in snow"),
    ("bowl made entirely of wood", "entirely", "bowl made of wood"),
    ("a red very old car", "red", "a very old car"),
    # “a” and “an”
    ("a highly detailed owl", "highly detailed", "an owl"),
    ("An orange unicorn", "orange", "A unicorn"),
    ("a cat and a red owl, an old hour glass", "red, old", "a cat and an owl, an hour glass"),
    # “and”
    ("a watercolor and ink painting", "watercolor", "an ink painting"),
    ("a fox in chalk and ink", "chalk, ink", "a fox"),
    ("a fox with white ground and bold lines", "white ground", "a fox with bold lines"),
    # marks
    ("a fox; watercolor; snow", "watercolor", "a fox; snow"),
    ("A fox. It is detailed.", "detailed", "A fox."),
    ("A fox. Watercolor, snow", "watercolor", "A fox. snow"),
    ("a fox, watercolor. Snow", "watercolor", "a fox. Snow"),
    ("a fox, watercolor", "watercolor", "a fox"),
    ("photo: a fox", "photo", "a fox"),
    ("a fox, (watercolor:1.2), snow", "watercolor", "a fox, snow"),
    ("(watercolor fox:1.2), snow", "watercolor", "(fox:1.2), snow"),
    ("a fox [watercolor] in “sketch” snow", "watercolor, sketch", "a fox in snow"),
    ("version 1.5 of the red car", "red", "version 1.5 of the car"),
    # what is not at a gap stays as it is
    ("a owl on of, red", "red", "a owl on of"),
    ("un renard à l'aquarelle, neige", "aquarelle", "un renard à l', neige"),
    ("watercolors", "watercolor", "watercolors"),
    ("a fox , snow", "watercolor", "a fox , snow"),
    ("Watercolor", "watercolor", ""),
]


@pytest.mark.parametrize(("caption", "words", "left"), REMOVED)
def test_what_is_left_reads_well(caption: str, words: str, left: str) -> None:
    assert " ".join(remove_words(caption, words.split(",")).split()) == left


@pytest.mark.parametrize(
    ("caption", "left"),
    [
        (f"(fox:{'1' * LONG}x", f"(:{'1' * LONG}x"),
        (f"{'(' * LONG}fox{')' * LONG}", f"{'(' * (LONG - 10)}{')' * (LONG - 10)}"),
        (f"{'((((fox)))), ' * 9}a hen", "a hen"),
    ],
    ids=["digits", "brackets", "nested"],
)
def test_a_caption_of_any_length_is_read_in_one_go(caption: str, left: str) -> None:
    assert remove_words(caption, ["fox"]) == left
