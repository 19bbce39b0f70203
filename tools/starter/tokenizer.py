"""The tokenizer: a byte-pair vocabulary trained on the artwork's names and keywords."""

import json
from collections.abc import Iterable, Sequence

import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import CLIPTokenizer

from tools.starter.artwork import BACKGROUNDS, ArtworkSet, ArtworkSubject
from tools.starter.captions import CAPTION_WORDS
from tools.starter.checkpoint import Checkpoint
from tools.starter.recipe import Recipe

START, END = "<|startoftext|>", "<|endoftext|>"
WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""CLIP's rule for word boundaries; `CLIPTokenizer` uses the same."""


def train_tokenizer(subjects: Sequence[ArtworkSubject], recipe: Recipe) -> CLIPTokenizer:
    """A byte-pair vocabulary in which nearly every name and keyword is one token."""
    text = [name for subject in subjects for name in (subject.name, *subject.plain_names)]
    text += [keyword for subject in subjects for keyword in subject.keywords]
    # Words that are in every caption must be frequent enough to stay one token.
    text += [f"{hand.value} style" for hand in ArtworkSet for _ in subjects]
    text += [f"on a {color} background" for color in BACKGROUNDS for _ in subjects]
    text += [" ".join(sorted(CAPTION_WORDS)) for _ in subjects]
    tokenizer = Tokenizer(BPE(unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    # The alphabet contains every byte, so that any prompt in any language has tokens.
    trainer = BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    return _as_clip(tokenizer, recipe)


def _as_clip(tokenizer: Tokenizer, recipe: Recipe) -> CLIPTokenizer:
    """The same vocabulary as a `CLIPTokenizer`, with an end-of-word variant of each byte."""
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = dict(model["vocab"])
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary.setdefault(f"{symbol}</w>", len(vocabulary))
    return _make_clip(vocabulary, model["merges"], recipe)


def _make_clip(
    vocabulary: dict[str, int], merges: Iterable[Sequence[str]], recipe: Recipe
) -> CLIPTokenizer:
    pairs = [tuple(pair) for pair in merges]
    return CLIPTokenizer(vocab=vocabulary, merges=pairs, model_max_length=recipe.tokens)


def keep_tokenizer(
    subjects: Sequence[ArtworkSubject], recipe: Recipe, checkpoint: Checkpoint
) -> CLIPTokenizer:
    """The tokenizer of the checkpoint, else a trained one: ties are broken differently each time,
    and an encoder that goes on needs the numbers that it began with."""
    state = checkpoint.read()
    if state is not None:
        return _make_clip(state["vocabulary"], state["merges"], recipe)
    tokenizer = train_tokenizer(subjects, recipe)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    checkpoint.write({"vocabulary": model["vocab"], "merges": model["merges"]})
    return tokenizer


def pad_tokens(tokenizer: CLIPTokenizer, captions: Iterable[Sequence[int]]) -> Tensor:
    """Token ids with start and end, (n, tokens), padded and cut to the length of the encoder.

    `captions`: token ids without start and end.
    """
    length = tokenizer.model_max_length
    rows = []
    for caption in captions:
        cut = [tokenizer.bos_token_id, *caption[: length - 2]]
        rows.append(cut + [tokenizer.eos_token_id] * (length - len(cut)))
    return torch.tensor(rows)
