import random
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from tools.starter.artwork import ArtworkSet, ArtworkSubject
from tools.starter.captions import Look
from tools.starter.hardware import Hardware
from tools.starter.recipe import tiny_recipe
from tools.starter.text_encoder import (
    CaptionSource,
    known_words,
    measure_drawings,
    outlines_of,
    patches_of,
)
from tools.starter.tokenizer import pad_tokens, train_tokenizer
from tools.starter.training_set import choose_images
from tools.starter.unknown_words import UnknownWords


@pytest.fixture(scope="module")
def tokenizer(subjects: list[ArtworkSubject]) -> CLIPTokenizer:
    """A tokenizer with room for the words of a dozen subjects."""
    return train_tokenizer(subjects, replace(tiny_recipe(), vocabulary=1200))


@pytest.fixture(scope="module")
def words(tokenizer: CLIPTokenizer, subjects: list[ArtworkSubject]) -> UnknownWords:
    return UnknownWords(tokenizer, known_words(subjects), ["castle", "because", "window"])


def test_names_and_the_words_around_them_are_one_token_each(
    tokenizer: CLIPTokenizer, subjects: list[ArtworkSubject]
) -> None:
    around = ["noto style on a blue background", "line drawing of a", "black and white"]
    for text in [*(subject.name for subject in subjects), *around]:
        assert tokenizer.tokenize(text) == [f"{word}</w>" for word in text.split()]


def test_captions_are_padded_and_cut_to_the_length_of_the_encoder(
    tokenizer: CLIPTokenizer,
) -> None:
    captions = ["castle", "castle " * 100]
    ids = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    assert ids.shape == (2, 40)
    assert ids[0, 0] == tokenizer.bos_token_id
    assert (ids[0, 2:] == tokenizer.eos_token_id).all()
    assert ids[1, -1] == tokenizer.eos_token_id
    bare = [tokenizer(text, add_special_tokens=False).input_ids for text in captions]
    assert torch.equal(pad_tokens(tokenizer, bare), ids)


def test_words_of_any_language_have_tokens(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("Schloß 城 zq9!", add_special_tokens=False).input_ids
    assert ids
    assert tokenizer.eos_token_id not in ids


def test_made_up_words_cover_the_vocabulary_and_are_no_known_word(
    words: UnknownWords, tokenizer: CLIPTokenizer, subjects: list[ArtworkSubject]
) -> None:
    rng = random.Random(0)
    made = [words.word(rng) for _ in range(6000)]
    known = {tuple(words.ids(word)) for word in known_words(subjects)}
    assert not known & {tuple(word) for word in made}
    used = {token for word in made for token in word}
    assert len(used) > 0.8 * (len(tokenizer) - 2)
    assert not used & set(tokenizer.all_special_ids)
    assert {len(word) for word in made} >= {1, 2, 3, 4, 5}


def test_unknown_words_stand_on_every_side_of_the_caption(words: UnknownWords) -> None:
    rng = random.Random(0)
    castle = words.ids("castle")
    places = set()
    for _ in range(300):
        tokens = words.beside("castle on a blue background", rng, limit=22, most=38)
        start = tokens.index(castle[0])
        places.add("behind" if start == 0 else "before")
        assert len(tokens) <= 38
        assert tokens[start : start + len(castle)] == castle
    assert places == {"before", "behind"}


def test_captions_leave_the_places_of_the_patches_free(
    subjects: list[ArtworkSubject], tokenizer: CLIPTokenizer
) -> None:
    source = CaptionSource(choose_images(subjects, size=32), tokenizer, [])
    rng = random.Random(1)
    lengths = [len(source.mixed(rng.randrange(100), rng, unknown=0)) for _ in range(300)]
    assert source.limit == 22
    assert max(lengths) <= 22
    long = [len(source.mixed(0, rng, unknown=1.0)) for _ in range(400)]
    assert sum(length > 22 for length in long) < 40


def test_patches_are_squares_of_the_latent_row_by_row() -> None:
    latents = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).view(2, 3, 8, 8)
    patches = patches_of(latents)
    assert patches.shape == (2, 16, 3 * 2 * 2)
    assert torch.equal(patches[1, 6].view(3, 2, 2), latents[1, :, 2:4, 4:6])
    outlines = outlines_of(latents).view(2, 3, 16)
    assert torch.allclose(outlines[0, :, 6], latents[0, :, 2:4, 4:6].mean(dim=(1, 2)))


class KnowsOneDrawing(torch.nn.Module):
    """An encoder whose states are the patches of one set's drawing for every bare name."""

    def __init__(self, by_tokens: dict[tuple[int, ...], Tensor]) -> None:
        super().__init__()
        self.by_tokens = by_tokens

    def forward(self, tokens: Tensor) -> SimpleNamespace:
        states = [self.by_tokens[tuple(row.tolist())] for row in tokens]
        return SimpleNamespace(last_hidden_state=torch.stack(states))


def test_the_bare_name_means_the_set_that_a_given_encoder_predicts_for_it(
    subjects: list[ArtworkSubject], tokenizer: CLIPTokenizer
) -> None:
    dataset = choose_images(subjects[:3], size=32)
    source = CaptionSource(dataset, tokenizer, [])
    patches = torch.randn(len(dataset.images), 16, 4)
    meant = [ArtworkSet.TWEMOJI, ArtworkSet.NOTO, ArtworkSet.FLUENT]
    by_tokens = {}
    for index, shown in enumerate(dataset.images):
        on_white = shown.ground == "white" and shown.look is Look.PLAIN
        if on_white and shown.hand is meant[shown.subject]:
            name = dataset.subjects[shown.subject].name
            (row,) = pad_tokens(tokenizer, [source.words.ids(name)]).tolist()
            by_tokens[tuple(row)] = patches[index]
    head = torch.nn.Linear(4, 4)
    torch.nn.init.eye_(head.weight)
    torch.nn.init.zeros_(head.bias)
    encoder = cast("CLIPTextModel", KnowsOneDrawing(by_tokens))
    dataset.default_sets.choose(
        measure_drawings(encoder, head, source, patches, Hardware(), bare=True)
    )
    assert [dataset.default_sets.get(index) for index in range(3)] == meant
