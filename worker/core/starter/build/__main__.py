"""`python -m worker.core.starter.build --out FOLDER`: builds the embedded base from artwork."""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from worker.core.starter.build.artwork import Subject, load_artwork, read_subjects
from worker.core.starter.build.autoencoder import encode_pictures, train_autoencoder
from worker.core.starter.build.pictures import paint_pictures
from worker.core.starter.build.recipe import Recipe, full_recipe, tiny_recipe
from worker.core.starter.build.text_encoder import train_text_encoder
from worker.core.starter.build.unet import make_scheduler, train_unet


@dataclass(frozen=True)
class Losses:
    """The loss of every step, stage by stage."""

    autoencoder: list[float]
    text_encoder: list[float]
    unet: list[float]


def build_starter(subjects: Sequence[Subject], recipe: Recipe, out: Path) -> Losses:
    """A diffusers folder at `out`, in fp16, that draws the subjects by name."""
    pictures = paint_pictures(subjects, captions=recipe.captions, seed=recipe.seed)
    print(f"{len(subjects)} subjects, {len(pictures.pixels)} pictures", flush=True)
    vae, autoencoder_losses = train_autoencoder(pictures, recipe)
    latents = encode_pictures(vae, pictures)
    words = train_text_encoder(subjects, pictures, latents, recipe)
    unet, unet_losses = train_unet(latents, pictures, words, recipe)
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
    length.add_argument("--minutes", type=float, default=75.0, help="training time in all (75)")
    length.add_argument("--tiny", action="store_true", help="a toy, in about a minute")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--artwork", type=Path, help="folder with the four npm tarballs")
    source.add_argument("--subjects", type=Path, help="JSON file of subjects, as the tests use")
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
