from __future__ import annotations

import pytest

from worker.core.evaluation.errors import EvaluationError
from worker.core.evaluation.subjects import EVERYDAY, named_subjects, propose_subjects
from worker.core.eyes import open_eyes
from worker.core.starter.prompt_words import read_prompt


def test_subjects_are_those_that_no_caption_names() -> None:
    found = propose_subjects(["Two castles, ink style", "A cat on ice cream"], 24)
    assert len(found) == 24
    assert not {"castle", "cat", "ice cream"} & {*found}
    assert found[:2] == ["apple", "bicycle"]
    with pytest.raises(EvaluationError, match="leave 39 of 40 subjects, and 40 are wanted"):
        propose_subjects(["a cat"], 40)


def test_the_embedded_base_draws_them_and_the_eyes_name_them() -> None:
    assert all(read_prompt(name).has_subject for name in EVERYDAY)
    assert all(open_eyes(device="cpu").knows(EVERYDAY))


def test_subjects_of_captions_are_those_whose_noun_a_caption_has() -> None:
    captions = ["Two red foxes by a tree, ink style", "a dog"]
    subjects = ["a red bicycle", "red fox", "a bird in a tree", "Trees in fog", "Dog", "雪"]
    assert named_subjects(subjects, captions) == ["Trees in fog", "Dog"]
    assert named_subjects(["red fox"], ["a FOX at night"]) == ["red fox"]
