"""`python -m worker.core.starter.build --out FOLDER`: builds the embedded base from artwork."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from worker.core.starter.build.artwork import ArtworkSubject, load_artwork, read_subjects
from worker.core.starter.build.autoencoder import encode_latents, train_autoencoder
from worker.core.starter.build.recipe import Recipe, full_recipe, tiny_recipe
from worker.core.starter.build.text_encoder import train_text_encoder
from worker.core.starter.build.training_set import render_training_set
from worker.core.starter.build.unet import make_scheduler, train_unet


@dataclass(frozen=True)
class Losses:
    """The loss of every step, by stage."""

    autoencoder: list[float]
    text_encoder: list[float]
    unet: list[float]


def build_starter(subjects: Sequence[ArtworkSubject], recipe: Recipe, out: Path) -> Losses:
    """Write a diffusers folder in fp16 to `out` whose model generates the subjects by name."""
    dataset = render_training_set(subjects, captions=recipe.captions, seed=recipe.seed)
    print(f"{len(subjects)} subjects, {len(dataset.pixels)} images", flush=True)
    vae, autoencoder_losses = train_autoencoder(dataset, recipe)
    latents = encode_latents(vae, dataset)
    words = train_text_encoder(subjects, dataset, latents, recipe)
    unet, unet_losses = train_unet(latents, dataset, words, recipe)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=words.encoder,
        tokenizer=words.tokenizer,
        unet=unet,
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16)
    pipeline.save_pretrained(out)
    return Losses(autoencoder_losses, words.losses, unet_losses)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m worker.core.starter.build", description=__doc__
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished base")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=75.0, help="total training time (75)")
    length.add_argument("--tiny", action="store_true", help="a tiny model, in about a minute")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--artwork", type=Path, help="folder with the four npm tarballs")
    source.add_argument("--subjects", type=Path, help="JSON file of subjects, as in the tests")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    given = options.subjects
    subjects = read_subjects(given) if given else load_artwork(options.artwork)
    recipe = (
        tiny_recipe(seed=options.seed)
        if options.tiny
        else full_recipe(options.minutes, seed=options.seed)
    )
    started = time.monotonic()
    build_starter(subjects, recipe, options.out)
    print(f"{options.out} is ready after {(time.monotonic() - started) / 60:.0f} minutes")


if __name__ == "__main__":
    main()
