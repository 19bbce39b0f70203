"""`python -m tools.eyes --artwork FOLDER --work FOLDER`: makes the embedded eyes."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from tools.eyes.drawings import Artwork, UnseenHand, load_eyes_artwork, render_all
from tools.eyes.evaluation import ask, ask_captioned, fit_scale, judge_honesty, score_table
from tools.eyes.looks import HELD_OUT, TRAINED, on_white
from tools.eyes.training import EyesRecipe, ImageStream, Split, Trainer, reduced, split_drawings
from tools.starter.plain_names import PLAIN_NAMES
from worker.core import starter
from worker.core.eyes.embedded import WEIGHTS, EmbeddedEyes, load_embedded, save_embedded
from worker.core.eyes.vocabulary import build_vocabulary

VIEWS = 4
"""Looks of every held-out drawing that the confidence is calibrated on."""

MEASURED = 1000
"""Drawings of the training that are measured, about."""


def build_eyes(artwork: Artwork, recipe: EyesRecipe, out: Path, work: Path | None) -> EmbeddedEyes:
    """Train, calibrate and write the eyes; `work`: a folder for drawings and checkpoints."""
    pixels = render_all(artwork.drawings, work and work / "drawings.npy")
    trainer = Trainer(artwork, pixels, recipe)
    trainer.run(work and work / "training.pt")
    vocabulary = build_vocabulary(artwork.names, artwork.aliases, artwork.keywords, PLAIN_NAMES)
    eyes = EmbeddedEyes(trainer.average_network, trainer.average_head, vocabulary, scale=1.0)
    torch.manual_seed(recipe.seed)
    eyes.scale = calibrate(eyes, trainer.stream, trainer.split)
    save_embedded(eyes, out)
    return load_embedded(out, device="cpu")


def calibrate(eyes: EmbeddedEyes, stream: ImageStream, split: Split) -> float:
    """The scale for drawings that did not train, in looks that did not train."""
    chosen = (split.held_out if len(split.held_out) else split.train).repeat(VIEWS)
    answers = ask(eyes, "", stream.draw_these(chosen, HELD_OUT), stream.names[chosen])
    return fit_scale(answers.cosines, stream.names[chosen].numpy())


def evaluate(artwork: Artwork, eyes: EmbeddedEyes, recipe: EyesRecipe, work: Path | None) -> str:
    """The tables of the README: own drawings, held-out ones, and styles that tuned nothing."""
    pixels = render_all(artwork.drawings, work and work / "drawings.npy")
    split = split_drawings(artwork, recipe)
    stream = ImageStream(artwork, pixels, split.train)
    trained = split.train[:: max(1, len(split.train) // MEASURED)]
    torch.manual_seed(recipe.seed)
    own = [
        ask(eyes, f"{title}, {view}", images, stream.names[chosen])
        for title, chosen in (("trained drawings", trained), ("held-out drawings", split.held_out))
        if len(chosen)
        for view, images in (
            ("on white", on_white(reduced(pixels[chosen]))),
            ("looks of the training", stream.draw_these(chosen, TRAINED)),
            ("held-out looks", stream.draw_these(chosen, HELD_OUT)),
        )
    ]
    unseen_pixels = render_all(artwork.unseen, work and work / "unseen.npy")
    unseen = []
    for hand in UnseenHand:
        where = [i for i, drawing in enumerate(artwork.unseen) if drawing.hand == hand]
        if where:
            names = torch.tensor([artwork.unseen[index].name for index in where])
            images = on_white(reduced(unseen_pixels[where]))
            unseen.append(ask(eyes, f"{hand.value}, a style never seen", images, names))
    examples = [
        ask_captioned(eyes, f"the example style in `{captions.parent.name}/`", captions.parent)
        for captions in sorted(Path(starter.__file__).parent.rglob("metadata.jsonl"))
    ]
    found = judge_honesty(unseen, eyes.scale)
    return f"{score_table([*own, *unseen, *examples])}\n\nScale {eyes.scale:.1f}. {found}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.eyes", description=__doc__)
    parser.add_argument("--artwork", type=Path, required=True, help="folder with the npm tarballs")
    parser.add_argument("--work", type=Path, help="folder for rendered drawings and checkpoints")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the weights file to write")
    parser.add_argument(
        "--minutes", type=float, default=EyesRecipe.minutes, help="CPU time of one core (25)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fp32", action="store_true", help="for cores without bf16 in hardware")
    parser.add_argument("--only-evaluate", action="store_true", help="measure the weights in --out")
    options = parser.parse_args(arguments)
    if options.work:
        options.work.mkdir(parents=True, exist_ok=True)
    dtype = torch.float32 if options.fp32 else torch.bfloat16
    recipe = EyesRecipe(minutes=options.minutes, seed=options.seed, dtype=dtype)
    artwork = load_eyes_artwork(options.artwork)
    if options.only_evaluate:
        eyes = load_embedded(options.out, device="cpu")
    else:
        eyes = build_eyes(artwork, recipe, options.out, options.work)
    print(evaluate(artwork, eyes, recipe, options.work))


if __name__ == "__main__":
    main()
