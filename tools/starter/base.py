"""All stages of a build, from artwork to a diffusers folder."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, PreTrainedTokenizerBase

from tools.starter.artwork import ArtworkSubject
from tools.starter.autoencoder import encode_latents, scale_latents, train_autoencoder
from tools.starter.checkpoint import Checkpoint, fingerprint, never
from tools.starter.errors import BuildError
from tools.starter.hardware import Hardware
from tools.starter.recipe import Recipe
from tools.starter.text_encoder import CaptionSource, encode_tokens, train_text_encoder
from tools.starter.tokenizer import keep_tokenizer, pad_tokens
from tools.starter.training_set import TrainingSet, choose_images
from tools.starter.unet import caption_seed, make_scheduler, train_unet
from tools.starter.workplace import CHECKPOINTS
from worker.core.bases.tokenizer import end_after
from worker.core.starter.checksums import write_checksums
from worker.core.starter.subjects import KnownSubject, write_known_subjects

UNKNOWN = 0.15
"""Share of the UNet's captions with unknown words beside them."""

TOKENIZER_CLASS = "PreTrainedTokenizerFast"
NOTICE = "Names and keywords: emojibase-data (Miles Johnson, MIT); see LICENSES.md."


@dataclass(frozen=True)
class Losses:
    """The loss of every step, by stage."""

    autoencoder: list[float]
    text_encoder: list[float]
    unet: list[float]


@dataclass(frozen=True)
class Build:
    """The inputs of a build, and its device."""

    subjects: Sequence[ArtworkSubject]
    recipe: Recipe
    english: Sequence[str] = ()
    """Ordinary words that are taught as unknown ones."""
    start_from: Path | None = None
    """A diffusers folder with trained weights to begin with."""
    hardware: Hardware = field(default_factory=Hardware)
    interrupted: Callable[[], bool] = never


def build_starter(build: Build, out: Path) -> Losses:
    """Write a diffusers folder in fp16 to `out` whose model generates the subjects by name.

    Each stage leaves a checkpoint in `out/checkpoints`; run again after an interruption, the build
    goes on there. The caller holds the lock of `out`. Raises `BuildError` when a checkpoint is
    damaged or of another build, `BuildInterrupted` when somebody stopped it.
    """
    checkpoints = out / CHECKPOINTS
    checkpoints.mkdir(parents=True, exist_ok=True)
    recipe, hardware, interrupted = build.recipe, build.hardware, build.interrupted
    given = _open_given(build.start_from)
    dataset = choose_images(build.subjects, size=recipe.size, seed=recipe.seed)
    print(f"{len(build.subjects)} subjects, {len(dataset.images)} images", flush=True)
    inputs = (fingerprint([vars(subject) for subject in build.subjects]), recipe, _mark(given))

    def checkpoint(stage: str, *more: object) -> Checkpoint:
        return Checkpoint(checkpoints, stage, *inputs, *more)

    vae: AutoencoderTiny
    if given is None:
        vae, vae_losses = train_autoencoder(
            dataset,
            recipe,
            checkpoint("autoencoder"),
            hardware=hardware,
            interrupted=interrupted,
        )
    else:
        vae, vae_losses = given.vae, []
    raw = encode_latents(vae, dataset, checkpoint("latents"), interrupted=interrupted)
    latents = scale_latents(vae, raw)
    tokenizer = (
        given.tokenizer
        if given
        else keep_tokenizer(build.subjects, recipe, checkpoint("tokenizer"))
    )
    source = CaptionSource(dataset, tokenizer, build.english)
    encoder, text_losses = train_text_encoder(
        source,
        latents,
        recipe,
        checkpoint("text encoder"),
        start=given.text_encoder if given else None,
        hardware=hardware,
        interrupted=interrupted,
    )
    states, empty = _encode_captions(source, encoder, build)
    unet, unet_losses = train_unet(
        latents,
        states,
        empty,
        dataset.weights(),
        recipe,
        checkpoint("unet"),
        start=given.unet if given else None,
        hardware=hardware,
        interrupted=interrupted,
    )
    _export(vae, encoder, end_after(tokenizer, words=source.limit), unet, out)
    write_known_subjects(_known_subjects(dataset), out / "subjects.json", notice=NOTICE)
    write_checksums(out)
    return Losses(vae_losses, text_losses, unet_losses)


def _known_subjects(dataset: TrainingSet) -> Iterator[KnownSubject]:
    for index, one in enumerate(dataset.subjects):
        drawn_by = dataset.default_sets.get(index) or next(iter(one.drawings))
        yield KnownSubject(one.name, one.group, one.plain_names, one.keywords, drawn_by.value)


def _open_given(folder: Path | None) -> StableDiffusionPipeline | None:
    """The weights to start from, in float32."""
    if folder is None:
        return None
    try:
        return StableDiffusionPipeline.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
    except (OSError, ValueError) as error:
        raise BuildError(
            f"{folder} is no complete diffusers folder of a Stable Diffusion: {error}"
        ) from error


def _mark(given: StableDiffusionPipeline | None) -> str:
    """A hash of the weights to start from."""
    if given is None:
        return ""
    modules = (given.vae, given.text_encoder, given.unet)
    return fingerprint(*(weight for module in modules for weight in module.parameters()))


def _encode_captions(
    source: CaptionSource, encoder: CLIPTextModel, build: Build
) -> tuple[Tensor, Tensor]:
    """The states of a few captions of each image, (n, captions, tokens, width), and of none."""
    recipe = build.recipe
    captions = [
        source.mixed(index, rng, unknown=UNKNOWN)
        for index in range(len(source.dataset.images))
        for rng in (caption_seed(recipe.seed, index),)
        for _ in range(recipe.captions)
    ]
    tokens = pad_tokens(source.tokenizer, [*captions, []])
    states = encode_tokens(encoder, tokens, build.hardware)
    by_image = states[:-1].view(-1, recipe.captions, *states.shape[1:])
    return by_image, states[-1]


def _export(
    vae: AutoencoderTiny,
    encoder: CLIPTextModel,
    tokenizer: PreTrainedTokenizerBase,
    unet: UNet2DConditionModel,
    out: Path,
) -> None:
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    for module in (vae, unet):
        module.register_to_config(_name_or_path="")  # else the folder that it was read from
    pipeline.to(torch.float16)
    pipeline.save_pretrained(out)
    # transformers 5 writes a class that version 4 does not have; both have its other name.
    for path in (out / "model_index.json", out / "tokenizer" / "tokenizer_config.json"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("TokenizersBackend", TOKENIZER_CLASS), encoding="utf-8")
