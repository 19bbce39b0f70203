"""Captions in the answers of models, and the words that are taken out of them."""

from __future__ import annotations

import pytest

from worker.core.captioning.answers import MAX_CHARACTERS, caption_of_answer
from worker.core.captioning.do_not_name import MAX_WORD_LENGTH, MAX_WORDS, parse_words, remove_words
from worker.core.captioning.refusals import is_refusal
from worker.core.captioning.removing import fitting_article
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
        ("\x1b[31mA fox\x1b[0m in \x1b[1;38;5;9msnow\x1b[K", "A fox in snow"),
        ("\x1b]8;;http://h\x07A fox\x1b]8;;\x1b\\ in snow\x1b(B", "A fox in snow"),
        ("\x1b]A fox", "A fox"),
        ("\x9b31mA fox [31m", "A fox [31m"),
        ("   ", ""),
    ],
)  # fmt: skip
def test_a_caption_is_what_the_answer_is_about(answer: str, caption: str) -> None:
    assert caption_of_answer(answer) == caption


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, I can't help with that.",
        "I’m sorry, but I cannot describe this image.",
        "I am very sorry; I’m not able to assist with this request.",
        "Sorry, I can’t help.",
        "My apologies, but I am unable to identify people in images.",
        "Unfortunately, I am not able to view images.",
        "I'm afraid I can't do that.",
        "I cannot describe this.",
        "I can't see any image. Please upload it again.",
        "I won't describe this image.",
        "I'm unable to provide a caption for this image.",
        "I can't help with identifying real people, but the image shows a man.",
        "I must respectfully decline to describe this picture.",
        "I do not feel comfortable describing this image.",
        "I don't have the ability to see pictures.",
        "As an AI language model, I cannot see images.",
        "As an AI, I don't have the ability to view images.",
        "I'm just an AI assistant and I can't describe images of this kind.",
        "Thank you for the picture, but I can't identify the person in it.",
        "I understand that you want a caption. However, I cannot provide one.",
        "I'm sorry, but there is no image in your message.",
        "<think>Is this allowed?</think>\n\n**I'm sorry**, I can't help with that.",
        "\"I'm sorry, but I can't assist with that.\"",
        "This image violates my content policy.",
    ],
)
def test_a_refusal_is_no_caption(answer: str) -> None:
    assert is_refusal(caption_of_answer(answer))


@pytest.mark.parametrize(
    "caption",
    [
        "a sign that says I'm sorry",
        "a sign that says “I'm sorry, I can't help with that.”",
        "“I'm sorry, I can't stay”, written on a letter",
        "I'm sorry card with flowers",
        "sorry-looking dog in the rain, he cannot see",
        "“I cannot” painted on a wall",
        "I can't believe it's not butter, a tub on a table",
        "I can't help falling in love, lyrics on a wall",
        "I cannot see the forest, a poster of trees",
        "as an AI robot watches, a boy paints a fence",
        "AI assistant icon, blue",
        "an error page that reads: as an AI language model, I cannot answer",
        "a man who cannot see, unable to find his glasses",
        "Unfortunately named boat in a harbor",
        "thank you card with a fox",
        "I, Robot book cover",
        "this image of a fox hangs on a wall",
        "a fox",
        "",
    ],
)
def test_a_caption_that_has_words_of_a_refusal_is_a_caption(caption: str) -> None:
    assert not is_refusal(caption)


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
        ("an owl (watercolor)", "an owl"),
        ("an anime-style an owl", "an owl"),
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
