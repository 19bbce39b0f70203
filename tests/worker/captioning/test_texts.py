"""Captions in the answers of models, and the words that are taken out of them."""

from __future__ import annotations

import pytest

from worker.core.captioning.answers import MAX_CHARACTERS, caption_of_answer
from worker.core.captioning.articles import fitting_article
from worker.core.captioning.do_not_name import MAX_WORD_LENGTH, MAX_WORDS, parse_words, remove_words
from worker.core.captioning.style_words import NOT_TO_NAME, PRAISE, STYLES


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("A fox.", "A fox."),
        ("Sure! Here is a caption: \"A fox in snow.\"", "A fox in snow."),
        ("<think>It is\nred.</think>\n\nA fox", "A fox"),
        ("It is red.</think> A fox", "A fox"),
        ("<think>It is red and I go on and", ""),
        ("The image shows a fox.", "a fox."),
        ("a picture of a fox", "a fox"),
        ("**Caption:** fox, snow", "fox, snow"),
        ("a \u202efox\x00 in\tsnow\r\n", "a fox in snow"),
        ("A fox<|im_end|>", "A fox"),
        ("   ", ""),
    ],
)  # fmt: skip
def test_a_caption_is_what_the_answer_is_about(answer: str, caption: str) -> None:
    assert caption_of_answer(answer) == caption


def test_an_answer_without_end_is_cut_at_a_sentence() -> None:
    text = caption_of_answer("A fox sits in the snow. " * 200)
    assert len(text) <= MAX_CHARACTERS
    assert text.endswith("snow.")


@pytest.mark.parametrize(
    ("caption", "left"),
    [
        ("a watercolor painting of a fox, ink style", "a fox"),
        ("An ink drawing of an owl on a branch.", "an owl on a branch."),
        ("a fox in a simple ink style.", "a fox."),
        ("fox, watercolor, tree, line art", "fox, tree"),
        ("Two foxes sit. The style is minimalist.", "Two foxes sit."),
        ("a black-and-white sketch of a dog, drawn in Gouache, on a hill", "a dog, on a hill"),
        ("a stylized owl", "an owl"),
        ("a painter paints an apple", "a painter paints an apple"),
        ("a bottle of ink", "a bottle of ink"),
        ("drawings", ""),
        ("a masterpiece, a fox, best quality, concept art", "a fox"),
        ("a vintage risograph of a fox", "a fox"),
        ("a girl drawing a map", "a girl drawing a map"),
        ("a flat color lithograph of a fox, black and white cat", "a fox, black and white cat"),
        ("a person taking a photo of a picture", "a person taking a photo of a picture"),
    ],
)
def test_style_words_go_and_the_sentence_stays_whole(caption: str, left: str) -> None:
    assert remove_words(caption, NOT_TO_NAME).text == left


@pytest.mark.parametrize(
    ("word", "article"),
    [
        *(("fox", "a"), ("owl", "an"), ("unicorn", "a"), ("unimportant", "an"), ("one-eyed", "a")),
        *(("hour", "an"), ("house", "a"), ("honest", "an"), ("European", "a"), ("umbrella", "an")),
        *(("used", "a"), ("onion", "an"), ("Uzbek", "an"), ("3d", "a")),
    ],
)
def test_an_article_fits_the_word_after_it(word: str, article: str) -> None:
    assert (fitting_article("a", word), fitting_article("an", word)) == (article, article)
    assert fitting_article("A", word) == article.capitalize()
    assert fitting_article("the", word) == "the"


def test_captions_of_models_are_free_of_what_the_checks_call_a_style() -> None:
    assert set(NOT_TO_NAME) >= STYLES | PRAISE
    for words in STYLES | PRAISE:
        assert remove_words(f"a fox, {words}", NOT_TO_NAME).text == "a fox", words
    # the list is the default of a form with these limits, beside the trigger word
    assert len(NOT_TO_NAME) < MAX_WORDS
    assert max(map(len, NOT_TO_NAME)) <= MAX_WORD_LENGTH
    assert len(set(NOT_TO_NAME)) == len(NOT_TO_NAME)


def test_the_words_that_were_taken_out_are_named() -> None:
    cleaned = remove_words("a fox, inkgirl, INKGIRL style", ["inkgirl", "style"])
    assert (cleaned.text, cleaned.removed) == ("a fox", ("inkgirl", "style"))
    assert remove_words("a ( fox", ["(", "."]).text == "a fox"


def test_a_list_has_each_word_once() -> None:
    assert parse_words("ink,  Line  art\nINK,,\n") == ("ink", "Line art")
