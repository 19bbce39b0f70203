"""Stage two: words. A tokenizer made for the artwork's names, and a `CLIPTextModel`.

The encoder learns before the UNet, by predicting the latent of the picture a caption belongs to.
Trained together with the UNet instead, only colours followed the words after 45 minutes: the
denoiser finds the shape in the noise and has little reason to read.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from worker.core.starter.build.artwork import BACKGROUNDS, Hand, Subject
from worker.core.starter.build.pace import Journal, rate_factor
from worker.core.starter.build.pictures import Pictures
from worker.core.starter.build.recipe import Recipe

RATE = 2e-3
START, END = "<|startoftext|>", "<|endoftext|>"
WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""CLIP's own rule for where a word ends; `CLIPTokenizer` uses the same when it reads."""


def train_tokenizer(subjects: Sequence[Subject], recipe: Recipe) -> CLIPTokenizer:
    """A byte-pair vocabulary in which nearly every name and keyword is one token."""
    text = [subject.name for subject in subjects]
    text += [keyword for subject in subjects for keyword in subject.keywords]
    # Words of the caption's frame are in every caption; count them often enough to stay whole.
    text += [f"{hand.value} style" for hand in Hand for _ in subjects]
    text += [f"on a {colour} background" for colour in BACKGROUNDS for _ in subjects]
    tokenizer = Tokenizer(BPE(unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    # The alphabet holds every byte, so that no prompt in any language falls out of it.
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
    """The same vocabulary as a `CLIPTokenizer`, with an end-of-word twin for each byte."""
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary: dict[str, int] = dict(model["vocab"])
    for symbol in sorted(pre_tokenizers.ByteLevel.alphabet()):
        vocabulary.setdefault(f"{symbol}</w>", len(vocabulary))
    merges = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=recipe.tokens)


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Token numbers, (n, tokens), padded and cut to the encoder's length."""
    ids: Tensor = tokenizer(
        list(captions),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    return ids


@dataclass(frozen=True)
class Words:
    """The tokenizer, the frozen encoder, and the loss of each step."""

    tokenizer: CLIPTokenizer
    encoder: CLIPTextModel
    losses: list[float]


def train_text_encoder(
    subjects: Sequence[Subject], pictures: Pictures, latents: Tensor, recipe: Recipe
) -> Words:
    """Words that stand for pictures: states from which a small head can tell the latent.

    The head reads the end token and one random padding position after it, because the UNet
    attends to both.
    """
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(subjects, recipe)
    encoder = CLIPTextModel(_config(tokenizer, recipe))
    wanted = latents.flatten(1)
    head = nn.Sequential(
        nn.Linear(recipe.text_width, 4 * recipe.text_width),
        nn.GELU(),
        nn.Linear(4 * recipe.text_width, wanted.shape[1]),
    )
    ids = torch.stack([tokenize(tokenizer, texts) for texts in pictures.captions])
    weights = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=RATE, weight_decay=0.01)
    journal = Journal("text encoder")
    for share in recipe.text_encoder.progress():
        chosen = torch.randint(len(ids), (recipe.text_batch,))
        tokens = ids[chosen, torch.randint(ids.shape[1], (recipe.text_batch,))]
        states = encoder(tokens).last_hidden_state
        end = tokens.eq(tokenizer.eos_token_id).int().argmax(dim=1)
        later = end + (torch.rand(len(end)) * (recipe.tokens - end)).long()
        rows = torch.arange(len(end))
        found = head(torch.cat([states[rows, end], states[rows, later]]))
        loss = F.mse_loss(found, wanted[chosen].repeat(2, 1))
        optimizer.param_groups[0]["lr"] = RATE * rate_factor(share)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        journal.note(loss.item(), share)
    encoder.requires_grad_(False).eval()
    return Words(tokenizer, encoder, journal.losses)


def _config(tokenizer: CLIPTokenizer, recipe: Recipe) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.text_width,
        intermediate_size=4 * recipe.text_width,
        num_hidden_layers=recipe.text_layers,
        num_attention_heads=4,
        max_position_embeddings=recipe.tokens,
        projection_dim=recipe.text_width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@torch.no_grad()
def encode_captions(words: Words, captions: Sequence[str]) -> Tensor:
    """The encoder's states, (n, tokens, width)."""
    batches = torch.split(tokenize(words.tokenizer, captions), 256)
    return torch.cat([words.encoder(tokens).last_hidden_state for tokens in batches])
