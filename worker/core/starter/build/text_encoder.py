"""Stage two: a tokenizer trained on the artwork's names, and a `CLIPTextModel`.

The encoder is trained before the UNet, by predicting the latent of a caption's image. When it was
trained together with the UNet, only colors followed the words after 45 minutes: the denoiser finds
the shape in the noise and hardly needs the text.
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

from worker.core.starter.build.artwork import BACKGROUNDS, ArtworkSet, ArtworkSubject
from worker.core.starter.build.pace import Journal, rate_factor
from worker.core.starter.build.recipe import Recipe
from worker.core.starter.build.training_set import TrainingSet

RATE = 2e-3
START, END = "<|startoftext|>", "<|endoftext|>"
WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""CLIP's rule for word boundaries; `CLIPTokenizer` uses the same."""


def train_tokenizer(subjects: Sequence[ArtworkSubject], recipe: Recipe) -> CLIPTokenizer:
    """A byte-pair vocabulary in which nearly every name and keyword is one token."""
    text = [subject.name for subject in subjects]
    text += [keyword for subject in subjects for keyword in subject.keywords]
    # Words that are in every caption must be frequent enough to stay one token.
    text += [f"{hand.value} style" for hand in ArtworkSet for _ in subjects]
    text += [f"on a {color} background" for color in BACKGROUNDS for _ in subjects]
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
    merges = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=recipe.tokens)


def tokenize(tokenizer: CLIPTokenizer, captions: Sequence[str]) -> Tensor:
    """Token ids, (n, tokens), padded and cut to the encoder's length."""
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
    subjects: Sequence[ArtworkSubject], dataset: TrainingSet, latents: Tensor, recipe: Recipe
) -> Words:
    """Train a tokenizer and an encoder from whose states a small head can predict the latent.

    The head reads the end token and one random padding position after it, because the UNet
    attends to both.
    """
    torch.manual_seed(recipe.seed)
    tokenizer = train_tokenizer(subjects, recipe)
    encoder = CLIPTextModel(_config(tokenizer, recipe))
    targets = latents.flatten(1)
    head = nn.Sequential(
        nn.Linear(recipe.text_width, 4 * recipe.text_width),
        nn.GELU(),
        nn.Linear(4 * recipe.text_width, targets.shape[1]),
    )
    ids = torch.stack([tokenize(tokenizer, texts) for texts in dataset.captions])
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
        predicted = head(torch.cat([states[rows, end], states[rows, later]]))
        loss = F.mse_loss(predicted, targets[chosen].repeat(2, 1))
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
