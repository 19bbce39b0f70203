"""CLIP's vocabulary and merges, from the file that its authors published."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

from tokenizers import pre_tokenizers

VOCABULARY = Path(__file__).parent / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz"
MERGES = 49_152 - 256 - 2  # lines of the file that CLIP uses


@cache
def read_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(token to id, merges) as in openai/CLIP's simple_tokenizer.py."""
    lines = gzip.decompress(VOCABULARY.read_bytes()).decode().split("\n")[1 : MERGES + 1]
    merges = [(pair[0], pair[1]) for pair in (line.split() for line in lines)]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())  # the order of CLIP's bytes_to_unicode
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["".join(pair) for pair in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, merges
