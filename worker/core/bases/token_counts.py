"""Counts the tokens of captions without loading torch or a model: pages show the number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from worker.core import starter
from worker.core.bases.clip_vocabulary import read_vocabulary

CLIP_LIMIT = 75  # 77 positions, two of them for the start and the end
WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


@dataclass(frozen=True)
class TokenCounter:
    """Counts tokens as a base model does; it reads at most `limit` of them."""

    tokenizer: Tokenizer
    limit: int

    def count(self, text: str) -> int:
        """The number of tokens of a text, without those of its start and end."""
        return len(self.tokenizer.encode(text, add_special_tokens=False).ids)


@cache
def starter_counter() -> TokenCounter:
    """That of the embedded base."""
    folder = starter.PATH / "tokenizer"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    positions = json.loads((folder / "tokenizer_config.json").read_bytes())["model_max_length"]
    return TokenCounter(tokenizer, positions - tokenizer.num_special_tokens_to_add(False))


@cache
def clip_counter(limit: int = CLIP_LIMIT) -> TokenCounter:
    """That of CLIP, for every other base: SD 1, SD 2 and SDXL read prompts with its vocabulary.

    Others read `limit` tokens of about the same length.
    """
    vocabulary, merges = read_vocabulary()
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary,
            merges,
            unk_token="<|endoftext|>",
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    return TokenCounter(tokenizer, limit)
