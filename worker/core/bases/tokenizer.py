"""Tokenizers: the one in a base model's folder, and CLIP's for base models without one."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from tokenizers import processors
from transformers import CLIPTokenizer, PreTrainedTokenizerFast

from worker.core.bases.clip_vocabulary import read_vocabulary
from worker.core.bases.family import BaseModelError

AS_STORED = ("PreTrainedTokenizerFast", "TokenizersBackend")


def read_tokenizer(folder: Path, kind: str = CLIPTokenizer.__name__) -> Any:
    """The tokenizer in `folder`. Raises BaseModelError.

    One whose class is a name in AS_STORED is used exactly as its `tokenizer.json` says, any other
    as one of the class `kind`; a `CLIPTokenizer` takes only the vocabulary and merges from its
    files.
    """
    try:
        if _stored_class(folder / "tokenizer_config.json") in AS_STORED:
            kind = PreTrainedTokenizerFast.__name__
        reader = getattr(import_module("transformers"), kind)
        return reader.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise BaseModelError(
            f"The base model's {folder.name} cannot be read. Download the model again."
        ) from error


def _stored_class(file: Path) -> str:
    if not file.exists():
        return ""
    config = json.loads(file.read_bytes())
    return str(config.get("tokenizer_class", "")) if isinstance(config, dict) else ""


def end_after(tokenizer: CLIPTokenizer, *, words: int) -> Any:
    """The same tokenizer for an encoder whose last positions are not for words.

    It cuts a prompt after `words` tokens, although it pads to all positions. The rule stands in
    `tokenizer.json`, as a template that ends a prompt with as many end tokens as it takes, so that
    diffusers and other programs follow it too. Padding is the end token, so short prompts keep
    their ids.
    """
    positions = int(tokenizer.model_max_length)
    start, end = str(tokenizer.bos_token), str(tokenizer.eos_token)
    result = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        model_max_length=positions,
        bos_token=start,
        eos_token=end,
        pad_token=end,
        unk_token=str(tokenizer.unk_token),
    )
    result.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A" + f" {end}" * (positions - words - 1),
        special_tokens=[(start, tokenizer.bos_token_id), (end, tokenizer.eos_token_id)],
    )
    return result


def clip_tokenizer(*, length: int, pad: str) -> Any:
    """CLIP's tokenizer of 49,408 tokens with `length` positions and the padding token `pad`."""
    vocabulary, merges = read_vocabulary()
    return CLIPTokenizer(
        vocab=dict(vocabulary), merges=list(merges), pad_token=pad, model_max_length=length
    )
