"""CLIP's tokenizer from the bundled vocabulary, for base models without one."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path
from typing import Any

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

VOCABULARY = Path(__file__).parent / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz"
MERGES = 49_152 - 256 - 2  # lines of the file that CLIP uses


def clip_tokenizer(*, length: int, pad: str) -> Any:
    """CLIP's tokenizer of 49,408 tokens with `length` positions and the padding token `pad`."""
    vocabulary, merges = _read_vocabulary()
    return CLIPTokenizer(
        vocab=dict(vocabulary), merges=list(merges), pad_token=pad, model_max_length=length
    )


@cache
def _read_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(token to id, merges) as in openai/CLIP's simple_tokenizer.py."""
    lines = gzip.decompress(VOCABULARY.read_bytes()).decode().split("\n")[1 : MERGES + 1]
    merges = [(pair[0], pair[1]) for pair in (line.split() for line in lines)]
    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += ["".join(pair) for pair in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}, merges
