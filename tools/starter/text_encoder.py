"""Stage four: a `CLIPTextModel` whose last 16 states each predict a patch of the image's latent.

The encoder is trained before the UNet. When both were trained together, only colors followed the
words after 45 minutes: the denoiser finds the shape in the noise and hardly needs the text. The
last 16 positions predict the 4 x 4 patches of the latent through one linear layer, so that the
UNet's cross-attention finds "what is where" ready-made; the end token predicts the mean color of
every patch.

Unknown words are taught from the start: a caption with such words beside it has to predict the same
patches, and in a part of each batch its states are held to those of the caption alone.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tools.starter.artwork import BACKGROUNDS, ArtworkSet, ArtworkSubject
from tools.starter.average import Average
from tools.starter.captions import CAPTION_WORDS, Look
from tools.starter.checkpoint import Checkpoint, StageTraining, Stateful, never
from tools.starter.hardware import Hardware
from tools.starter.pace import rate_factor
from tools.starter.recipe import Recipe
from tools.starter.tokenizer import pad_tokens
from tools.starter.training_set import TrainingSet
from tools.starter.unknown_words import UnknownWords

RATE = 2e-3
TUNED_RATE = 7e-4
"""For an encoder that has learned already; its word vectors keep `RATE`, for the new words."""

PATCHES_A_SIDE = 4
PATCHES = PATCHES_A_SIDE**2

PAIRED = 0.23
"""Share of a batch that is encoded twice, without and with unknown words."""

UNKNOWN = 0.35
"""Share of the other captions that have unknown words beside them."""

CHOICE_SHARE = 0.5
"""Share of the stage in which every caption names its style. Then the encoder says for each subject
which set's drawing it predicts best, and the bare name means that one from there on."""

HOLD_WEIGHT = 0.7
PADDING_WEIGHT = 0.4
ANCHOR_WEIGHT = 0.12
EMA_DECAY = 0.99


def patches_of(latents: Tensor) -> Tensor:
    """The latents (n, channels, side, side) as (n, 16, channels * (side / 4)^2), row by row."""
    count, channels, side, _ = latents.shape
    small = side // PATCHES_A_SIDE
    grid = latents.view(count, channels, PATCHES_A_SIDE, small, PATCHES_A_SIDE, small)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(count, PATCHES, channels * small**2)


def outlines_of(latents: Tensor) -> Tensor:
    """The mean of every patch, (n, 16 * channels)."""
    return F.adaptive_avg_pool2d(latents, PATCHES_A_SIDE).flatten(1)


class CaptionSource:
    """Random captions of images as tokens, alone or with unknown words beside them."""

    def __init__(
        self, dataset: TrainingSet, tokenizer: CLIPTokenizer, english: Sequence[str]
    ) -> None:
        self.dataset, self.tokenizer = dataset, tokenizer
        self.limit = tokenizer.model_max_length - PATCHES - 2
        """Tokens of a caption that leave the places of the patches free."""
        self.words = UnknownWords(tokenizer, known_words(dataset.subjects), english)

    def caption(self, index: int, rng: random.Random) -> str:
        """A caption of an image that is short enough."""
        for _ in range(20):
            caption = self.dataset.caption(index, rng)
            if len(self.words.ids(caption)) <= self.limit:
                return caption
        return self.dataset.subjects[self.dataset.images[index].subject].name

    def with_unknown_words(self, caption: str, rng: random.Random) -> list[int]:
        """The tokens of a caption with unknown words beside it."""
        most = self.tokenizer.model_max_length - 2
        return self.words.beside(caption, rng, limit=self.limit, most=most)

    def mixed(self, index: int, rng: random.Random, *, unknown: float) -> list[int]:
        """The tokens of a caption, in a share `unknown` of the cases with unknown words."""
        caption = self.caption(index, rng)
        if rng.random() < unknown:
            return self.with_unknown_words(caption, rng)
        return self.words.ids(caption)


def known_words(subjects: Sequence[ArtworkSubject]) -> set[str]:
    """Every word that a caption can contain as a name, a style, a color or a frame."""
    names = {
        name
        for subject in subjects
        for name in (subject.name, *subject.plain_names, *subject.only_here)
    }
    words = {word for name in names for word in name.split()}
    return words | set(BACKGROUNDS) | {hand.value for hand in ArtworkSet} | CAPTION_WORDS


@dataclass(frozen=True)
class Anchor:
    """The states that given weights had for captions they knew, to stay close to."""

    states: Tensor
    """(n, 16, width)"""
    row: Tensor
    """(images,): the index into `states`, or -1."""


def train_text_encoder(
    source: CaptionSource,
    latents: Tensor,
    recipe: Recipe,
    checkpoint: Checkpoint,
    *,
    start: CLIPTextModel | None = None,
    hardware: Hardware,
    interrupted: Callable[[], bool] = never,
) -> tuple[CLIPTextModel, list[float]]:
    """The trained encoder, averaged over its last steps, and the loss of each step."""
    torch.manual_seed(recipe.seed)
    encoder = make_encoder(source.tokenizer, recipe)
    patches, outlines = patches_of(latents), outlines_of(latents)
    width = encoder.config.hidden_size
    head, end_head = nn.Linear(width, patches.shape[-1]), nn.Linear(width, outlines.shape[-1])
    anchor = None
    if start is not None:
        encoder.load_state_dict(start.state_dict())
        anchor = fit_given_encoder(encoder, head, source, patches, hardware)
        drawn = measure_drawings(encoder, head, source, patches, hardware, bare=True)
        source.dataset.default_sets.choose(drawn)
    encoder.to(hardware.device).train()
    heads = nn.ModuleList([head, end_head]).to(hardware.device)
    average = Average(encoder, EMA_DECAY)
    base = RATE if start is None else TUNED_RATE
    vectors = encoder.get_input_embeddings().weight
    others = [weight for weight in encoder.parameters() if weight is not vectors]
    optimizer = torch.optim.AdamW(
        [{"params": [*others, *heads.parameters()]}, {"params": [vectors]}],
        lr=base,
        betas=(0.9, 0.98),
        weight_decay=0.01,
    )
    default_sets = source.dataset.default_sets
    parts: dict[str, Stateful] = {
        "encoder": encoder,
        "heads": heads,
        "average": average,
        "optimizer": optimizer,
        "default sets": default_sets,
    }
    training = StageTraining(checkpoint, recipe.text_encoder, parts, interrupted=interrupted)
    weights = source.dataset.weights()
    pairs = max(1, round(PAIRED * recipe.text_batch))
    for share in training.shares():
        if share >= CHOICE_SHARE and not default_sets:
            default_sets.choose(measure_drawings(encoder, head, source, patches, hardware))
            weights = source.dataset.weights()
        rng = random.Random(f"{recipe.seed} {training.step}")
        chosen = torch.multinomial(weights, recipe.text_batch - pairs, replacement=True)
        tokens, alone, both = _draw_captions(source, chosen.tolist(), pairs, rng)
        with hardware.autocast():
            states = encoder(tokens.to(hardware.device)).last_hidden_state.float()
        shown = torch.cat([chosen, chosen[:pairs]])
        predicted = head(states[:, -PATCHES:])
        loss = F.mse_loss(predicted, patches[shown].to(hardware.device))
        ends = states[torch.arange(len(states)), _end_of(tokens, source.tokenizer)]
        loss = loss + F.mse_loss(end_head(ends), outlines[shown].to(hardware.device))
        spread = states[:, -PATCHES:].detach().flatten(0, 1).var(dim=0).mean()
        loss = loss + _hold(states[:pairs], states[-pairs:], alone, both) / spread
        if anchor is not None:
            loss = loss + ANCHOR_WEIGHT * _anchor_error(states, shown, anchor) / spread
        for group, rate in zip(optimizer.param_groups, (base, RATE), strict=True):
            group["lr"] = rate * rate_factor(share)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*encoder.parameters(), *heads.parameters()], 1.0)
        optimizer.step()
        average.update(training.step)
        training.journal.note(loss.item(), share)
    average.copy_to(encoder)
    return encoder.to("cpu").requires_grad_(False).eval(), training.journal.losses


def _draw_captions(
    source: CaptionSource, images: Sequence[int], pairs: int, rng: random.Random
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens of a caption for each image, then of the first ones again with unknown words.

    Also the lengths of the paired captions, alone and with the words.
    """
    captions = [source.caption(index, rng) for index in images[:pairs]]
    alone = [source.words.ids(caption) for caption in captions]
    both = [source.with_unknown_words(caption, rng) for caption in captions]
    single = [source.mixed(index, rng, unknown=UNKNOWN) for index in images[pairs:]]
    tokens = pad_tokens(source.tokenizer, [*alone, *single, *both])
    lengths = [torch.tensor([len(one) + 1 for one in group]) for group in (alone, both)]
    return tokens, lengths[0], lengths[1]


def _end_of(tokens: Tensor, tokenizer: CLIPTokenizer) -> Tensor:
    """The position of the end token in each row."""
    return tokens.eq(tokenizer.eos_token_id).int().argmax(dim=1)


def _hold(plain: Tensor, beside: Tensor, alone: Tensor, both: Tensor) -> Tensor:
    """The movement of the states by unknown words: patches, padding, and lightly the words.

    `alone` and `both` are the positions of the end tokens without and with the words.
    """
    error = (beside - plain.detach()).pow(2).mean(dim=-1)
    places = torch.arange(error.shape[1] - PATCHES)
    padding = (places >= both[:, None]).float()
    words = ((places >= alone[:, None]) & (places < both[:, None])).float()
    weight = (0.3 * padding + 0.05 * words).to(error.device)
    before = (error[:, :-PATCHES] * weight).sum(dim=1).mean() / weight.shape[1]
    return HOLD_WEIGHT * error[:, -PATCHES:].mean() + PADDING_WEIGHT * before


def _anchor_error(states: Tensor, shown: Tensor, anchor: Anchor) -> Tensor:
    """Mean squared distance of the patches' states from those of the given encoder."""
    rows = anchor.row[shown]
    known = rows >= 0
    if not known.any():
        return states.sum() * 0
    targets = anchor.states[rows[known]].float().to(states.device)
    return F.mse_loss(states[known.to(states.device), -PATCHES:], targets)


@torch.no_grad()
def fit_given_encoder(
    encoder: CLIPTextModel,
    head: nn.Linear,
    source: CaptionSource,
    patches: Tensor,
    hardware: Hardware,
) -> Anchor:
    """Fit the head to a given encoder in closed form (ridge), and keep the states it had.

    Captions whose patches it predicts worse than half of the mean image's error are none that it
    knows; they are left out.
    """
    plain = [index for index, shown in enumerate(source.dataset.images) if shown.look is Look.PLAIN]
    texts = [source.words.ids(source.dataset.canonical_caption(index)) for index in plain]
    states = encode_tokens(encoder, pad_tokens(source.tokenizer, texts), hardware)
    given = states[:, -PATCHES:].float()
    targets = patches[plain]
    padded = F.pad(given, (0, 1), value=1.0).flatten(0, 1)
    system = padded.T @ padded + torch.eye(padded.shape[1])
    solution = torch.linalg.solve(system, padded.T @ targets.flatten(0, 1))
    head.weight.copy_(solution[:-1].T)
    head.bias.copy_(solution[-1])
    error = (head(given) - targets).pow(2).mean(dim=(1, 2))
    mean_image = (targets - targets.mean(dim=0)).pow(2).mean()
    known = error < mean_image / 2
    row = torch.full((len(patches),), -1)
    row[torch.tensor(plain)[known]] = torch.arange(int(known.sum()))
    return Anchor(given[known].half(), row)


@torch.no_grad()
def measure_drawings(
    encoder: CLIPTextModel,
    head: nn.Linear,
    source: CaptionSource,
    patches: Tensor,
    hardware: Hardware,
    *,
    bare: bool = False,
) -> dict[tuple[int, ArtworkSet], float]:
    """The encoder's error for each subject's drawing on white, by subject and set.

    The squared error relative to the drawing's own distance from the mean image. With `bare`, from
    the name alone: the set of the lowest error is what it means to an encoder that has learned.
    """
    images = source.dataset.images
    plain = [
        index
        for index, shown in enumerate(images)
        if shown.ground == "white" and shown.look is Look.PLAIN
    ]
    captions = (
        [source.dataset.subjects[images[index].subject].name for index in plain]
        if bare
        else [source.dataset.canonical_caption(index) for index in plain]
    )
    texts = [source.words.ids(caption) for caption in captions]
    states = encode_tokens(encoder, pad_tokens(source.tokenizer, texts), hardware)
    targets = patches[plain]
    predicted = head(states[:, -PATCHES:].float().to(hardware.device)).cpu()
    error = (predicted - targets).pow(2).mean(dim=(1, 2))
    size = (targets - targets.mean(dim=0)).pow(2).mean(dim=(1, 2)).clamp(min=1e-6)
    shares = (error / size).tolist()
    drawings = [(images[index].subject, images[index].hand) for index in plain]
    return dict(zip(drawings, shares, strict=True))


def make_encoder(tokenizer: CLIPTokenizer, recipe: Recipe) -> CLIPTextModel:
    """An untrained encoder for the tokenizer."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.text_width,
        intermediate_size=4 * recipe.text_width,
        num_hidden_layers=recipe.text_layers,
        num_attention_heads=4,
        hidden_act="gelu",
        max_position_embeddings=recipe.tokens,
        projection_dim=recipe.text_width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # The backward pass of fused attention is slow on CPUs.
    return CLIPTextModel._from_config(config, attn_implementation="eager")


@torch.no_grad()
def encode_tokens(encoder: CLIPTextModel, tokens: Tensor, hardware: Hardware) -> Tensor:
    """The encoder's states in half precision, (n, tokens, width)."""
    encoder.to(hardware.device)
    found = []
    for batch in torch.split(tokens, 128):
        with hardware.autocast():
            states = encoder(batch.to(hardware.device)).last_hidden_state
        found.append(states.to("cpu", torch.float16))
    return torch.cat(found)
