from dataclasses import replace

import pytest
from transformers import CLIPTokenizer

from worker.core.starter.build.artwork import ArtworkSubject
from worker.core.starter.build.recipe import tiny_recipe
from worker.core.starter.build.text_encoder import tokenize, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer(subjects: list[ArtworkSubject]) -> CLIPTokenizer:
    """A tokenizer with room for the words of a dozen subjects."""
    return train_tokenizer(subjects, replace(tiny_recipe(), vocabulary=1200))


def test_names_and_the_words_around_them_are_one_token_each(
    tokenizer: CLIPTokenizer, subjects: list[ArtworkSubject]
) -> None:
    for text in [*(subject.name for subject in subjects), "noto style on a blue background"]:
        assert tokenizer.tokenize(text) == [f"{word}</w>" for word in text.split()]


def test_captions_are_padded_and_cut_to_the_length_of_the_encoder(
    tokenizer: CLIPTokenizer,
) -> None:
    ids = tokenize(tokenizer, ["castle", "castle " * 100])
    assert ids.shape == (2, 24)
    assert ids[0, 0] == tokenizer.bos_token_id
    assert (ids[0, 2:] == tokenizer.eos_token_id).all()
    assert ids[1, -1] == tokenizer.eos_token_id


def test_words_of_any_language_have_tokens(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("Schloß 城 zq9!", add_special_tokens=False).input_ids
    assert ids
    assert tokenizer.eos_token_id not in ids
