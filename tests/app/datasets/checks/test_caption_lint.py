"""Caption lint: what it finds in captions, and what it leaves alone."""

from __future__ import annotations

import itertools
import json

import pytest

from app.registry.datasets.checks.caption_lint import lint_captions, read_captions
from app.registry.datasets.checks.findings import Check, Finding
from worker.core.captioning.removing import remove_words
from worker.core.starter.examples import EXAMPLES, Example
from worker.core.starter.subjects import known_subjects

SUBJECTS = ("fox", "red apple", "rocket", "owl", "mushroom", "sailboat", "cactus", "teapot")
# made by hand and in turn: every clean one has words that a careless rule would take for a style
CLEAN = (
    "a {} on the table",
    "a girl drawing a {}",
    "a man with a {} and a camera",
    "an artist is painting a {}",
    "{}, black and white cat, red hat",
    "a painting on the wall behind a {}",
    "a {} beside a woman holding a picture",
    "a person taking a photo",
    "{} from the side, flat roof, vintage car",
    "two children looking at a {} print on a shirt",
    "a {} with a gothic style church",
    "{}, short hair style, realistic doll in a box",
    "{}, wallpaper in a blue room",
    "a detailed map and a {}",
)
NAMING_A_STYLE = (
    "a chalk drawing of a {}",
    "{}, chalk drawing",
    "{} in watercolor",
    "an illustration of a {} on a table",
    "{}, in the style of a picture book",
    "a {} in a flat vector style",
    "{}, disney style",
    "{}, masterpiece, best quality",
    "{} as a pencil sketch",
    "a black and white photo of a {}",
    "{}, monochrome",
    "a {}, oil on canvas",
    "{} drawing",
    "pixel art, {}",
    "there is a drawing of a {}",
    "a {} drawn in charcoal",
    "a {}, art by somebody",
)


def lint(texts: list[str], trigger: str | None = None) -> list[Finding]:
    return lint_captions(read_captions(enumerate(texts), trigger), trigger_word=trigger)


def checks(texts: list[str], trigger: str | None = None) -> list[tuple[Check, int]]:
    return [(found.check, found.count) for found in lint(texts, trigger)]


def styles(text: str) -> list[str]:
    (read,) = read_captions([(1, text)], "zork")
    return [
        text[part.spans[start][0] : part.spans[end - 1][1]]
        for part, spans in zip(read.parts, read.styles, strict=True)
        for start, end in spans
    ]


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda example: example.title)
def test_the_examples_have_nothing_to_strip(example: Example) -> None:
    lines = (example.folder / "metadata.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    assert len(texts) == 24
    assert lint(texts, example.trigger) == []


def test_the_words_of_the_trigger_without_a_trigger_word_may_become_it() -> None:
    (found,) = lint([f"{name}, chalkboard style" for name in SUBJECTS])
    assert (found.check, found.fragments) == (Check.REPEATED_WORDS, ("chalkboard style",))
    assert "make them the trigger word" in found.reason


def test_no_name_of_a_subject_counts_as_a_style() -> None:
    names = [name for one in known_subjects() for name in (one.name, *one.plain_names)]
    wrong = [
        text
        for name in names
        for text in (f"{name}, zork style", f"a {name} on the table")
        if styles(text)
    ]
    # a caption that is nothing but “picture” says what the image is, and not what it shows
    assert (wrong, len(names) > 800) == (["picture, zork style"], True)


def test_clean_captions_are_left_alone_and_styles_are_found() -> None:
    pairs = itertools.product(CLEAN, SUBJECTS)
    wrong = [text for form, name in pairs if styles(text := form.format(name))]
    missed = [
        text
        for form, name in itertools.product(NAMING_A_STYLE, SUBJECTS)
        if not styles(text := form.format(name))
    ]
    assert (wrong, missed) == ([], [])


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("a simple chalk drawing of a fox, green board", ["a simple chalk drawing of"]),
        ("A Fox, Chalk-Drawing", ["Chalk-Drawing"]),
        ("fox, in the style of a picture book", ["in the style of a picture book"]),
        ("a fox in watercolor, snow", ["in watercolor"]),
        ("pixel_art, a fox", ["pixel_art"]),
        ("an anime style fox, pixel art and an owl", ["anime style", "pixel art"]),
        ("a fox in watercolor and ink", ["in watercolor and ink"]),
        ("a fox in watercolor and a bottle of ink", ["in watercolor"]),
        ("zork style, a fox in zork style", []),
        ("a fox, style of zork", []),
    ],
)
def test_a_fragment_is_what_can_be_removed(text: str, fragments: list[str]) -> None:
    assert styles(text) == fragments


def test_words_in_most_captions_are_found_with_what_leads_to_them() -> None:
    texts = [f"ink, a {name} on a white background" for name in SUBJECTS[:7]] + ["ink, a teapot"]
    (found,) = lint(texts, "ink")
    assert found.title == "“white background” is in 7 of 8 captions"
    assert (found.check, found.fragments) == (Check.REPEATED_WORDS, ("on a white background",))


def test_words_in_fewer_captions_are_left_alone() -> None:
    texts = [f"ink, a {name}{', snow' if n % 4 else ''}" for n, name in enumerate(SUBJECTS)]
    assert lint(texts, "ink") == []
    assert lint([f"ink, {name}, snow" for name in SUBJECTS[:4]], "ink") == []  # too few to say


def test_a_style_in_most_captions_is_one_finding() -> None:
    texts = [f"ink, a chalk drawing of a {name}" for name in SUBJECTS]
    (found,) = lint(texts, "ink")
    assert (found.check, found.fragments) == (Check.REPEATED_WORDS, ("a chalk drawing of",))


def test_spellings_of_one_phrase_are_one_finding_most_common_first() -> None:
    texts = [
        "ink, an ink painting of a fox",
        "ink, a red apple",
        "ink, owl, watercolor painting",
        "ink, a watercolor painting of a cactus",
        "ink, a watercolor painting of a teapot",
    ]
    found = [one for one in lint(texts, "ink") if "watercolor" in one.title]
    assert [one.fragments for one in found] == [("a watercolor painting of", "watercolor painting")]
    assert found[0].count == 3


def test_no_style_is_found_in_words_with_the_trigger_word() -> None:
    """A found phrase is offered to be stripped, which would strip the trigger word as well."""
    texts = ["ink drawing of a fox", "an ink sketch of an owl", "a house, ink vector style"]
    assert lint(texts, "ink") == []


def test_captions_without_the_trigger_word_are_counted() -> None:
    assert checks(["ink, fox", "pink owl", "INK, apple", "a rocket"], "ink") == [
        (Check.TRIGGER_WORD, 2)
    ]


def test_the_same_caption_twice_is_found_however_it_is_written() -> None:
    (found,) = lint(["ink, a fox", "A fox, ink", "ink, an owl", "ink: a fox!"], "ink")
    assert (found.check, found.piles) == (Check.SAME_CAPTION, ((0, 1, 3),))
    assert found.title == "3 images share the same caption"


def test_a_caption_of_style_and_trigger_alone_names_no_subject() -> None:
    found = lint(["ink", "in ink style, watercolor", "a drawing, ink", "ink, fox"], "ink")
    assert [one.image_ids for one in found if one.check is Check.SUBJECT] == [(0, 1, 2)]


@pytest.mark.parametrize(
    "form",
    [
        "a watercolor painting of a {}, highly detailed, soft pastel background, ink",
        "ink, a {} in watercolor, white background",
        "{} drawing, soft pastel background",
        "anime style {} on a white background, masterpiece",
    ],
)
def test_captions_that_name_a_subject_beside_style_and_repeated_words_are_not_bare(
    form: str,
) -> None:
    found = lint([form.format(name) for name in SUBJECTS], "ink")
    assert Check.REPEATED_WORDS in [one.check for one in found]
    assert Check.SUBJECT not in [one.check for one in found]


def test_repeated_words_beside_a_style_name_no_subject() -> None:
    form = "a watercolor painting of a {}, soft pastel background"
    texts = [form.format(name) for name in SUBJECTS]
    texts += ["watercolor painting, soft pastel background", "ink, on a soft pastel background"]
    found = [one for one in lint(texts, "ink") if one.check is Check.SUBJECT]
    assert [one.image_ids for one in found] == [(len(SUBJECTS), len(SUBJECTS) + 1)]


def test_a_caption_of_repeated_words_alone_names_no_subject() -> None:
    texts = [f"{name}, chalk stroke" for name in SUBJECTS] + ["ink, chalk stroke"]
    found = [one for one in lint(texts, "ink") if one.check is Check.SUBJECT]
    assert [one.image_ids for one in found] == [(len(SUBJECTS),)]


def test_one_subject_is_told_and_not_stripped() -> None:
    texts = [f"ink, a {how} fox {where}" for how in ("red", "small") for where in ("", "at night")]
    texts += ["ink, two foxes in the snow", "ink, a group of foxes", "ink, a teapot"]
    assert [(one.check, one.title) for one in lint(texts, "ink")] == [
        (Check.ONE_SUBJECT, "6 of 7 captions are about “fox”")
    ]


def test_nothing_is_found_where_there_are_no_captions() -> None:
    assert lint([], "ink") == []


@pytest.mark.parametrize(
    ("form", "left"),
    [
        ("a chalk style drawing of a {}", "chalk style, a {}"),
        ("a watercolor {}", "a {}"),
        ("watercolor of a {}", "a {}"),
        ("an anime style {} by the sea", "a {} by the sea"),
        ("a {} in watercolor and ink", "a {}"),
        ("a vector art of the {}", "the {}"),
        ("a {} in the snow. It is a detailed drawing.", "a {} in the snow."),
    ],
)
def test_what_the_checks_offer_to_strip_leaves_a_caption(form: str, left: str) -> None:
    names = ["fox", "red apple", "rocket", "badger", "mushroom", "sailboat"]
    texts = [form.format(name) for name in names]
    read = read_captions(enumerate(texts), "chalk")
    fragments = [
        text
        for one in lint_captions(read, trigger_word="chalk")
        for text in one.fragments
        if "sea" not in text and "snow" not in text
    ]
    found = [remove_words(text, fragments).strip() for text in texts]
    assert found == [left.format(name) for name in names]
