"""Common nouns as the embedded base draws them: `python -m bench.nouns --out FOLDER`.

Two lists that were taken from elsewhere before anybody looked at the artwork, as they are: the 80
classes of COCO and Dolch's 95 nouns (bench/lists). Each noun is drawn once, with seed 0 and the
settings of the playground. Nouns without a drawing in the artwork are listed and not drawn: nobody
can expect a base of a few hundred drawings to know them.

sheet.webp            every drawing under its noun
sheet-numbered.webp   the same in another order, numbered, for a reader who does not know the nouns
figures.json          by noun: its subject in the artwork, its number, what was seen in it

`--reader FILE` scores what a reader of the numbered sheet wrote, one line a drawing: its number and
a name, with "?" at the end if not sure. A name counts if the artwork has it for that subject.
`--eyes SOURCE` lets a model name the drawings too: `embedded`, among all of its names.
Drawings are kept in the folder by the fingerprint of the base, so an interrupted bench goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from bench.training import heading
from worker.core import starter
from worker.core.bases.inspect import inspect_base
from worker.core.eyes import open_eyes
from worker.core.eyes.interface import Eyes
from worker.core.eyes.naming import name_images
from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.starter.prompt_words import subject_for
from worker.core.starter.subjects import known_subjects
from worker.core.training.presets import SMALL_RESOLUTION, default_guidance

LISTS = Path(__file__).parent / "lists"
SOURCES = ("coco", "dolch")
SEED, STEPS = 0, 20
GUIDANCE = default_guidance(SMALL_RESOLUTION)  # steps and guidance as the playground has them
ORDER_SEED = 0
EYES_NAMES = 5
CELL, LABEL, GAP, COLUMNS = 128, 34, 8, 12
PAPER, INK = (250, 249, 247), (41, 37, 36)


@dataclass
class Noun:
    """A noun, the lists it is in, and what was seen in its drawing.

    `subject`: its name in the artwork; None if that has no drawing of it. `number`: its place on
    the numbered sheet, from 1. `read`: what each reader wrote. `seen`: names and confidences of the
    eyes, best first.
    """

    noun: str
    lists: list[str]
    subject: str | None
    number: int | None = None
    read: list[str] = field(default_factory=list)
    seen: list[tuple[str, float]] = field(default_factory=list)

    @property
    def file_name(self) -> str:
        """The name of its drawing."""
        return f"{self.noun.lower().replace(' ', '-')}.png"

    def is_named(self, answer: str) -> bool:
        """True if a reader's answer is the noun or any name that the artwork has for it."""
        said = answer.lower().rstrip("?").strip()
        return said in {self.noun.lower(), *names_of(self.subject)}

    def is_seen(self, within: int) -> bool:
        """True if one of the first names of the eyes is its subject."""
        return any(self.is_named(name) for name, _ in self.seen[:within])


def names_of(subject: str | None) -> set[str]:
    """Every name of a subject: its own, plain names, keywords, and of an animal its face."""
    found: set[str] = set()
    for known in known_subjects():
        if subject in (known.name, known.name.removesuffix(" face")):
            found |= {known.name, *known.plain_names, *known.keywords}
    return found


def read_nouns() -> list[Noun]:
    """The nouns of both lists, each once, with their subjects in the artwork."""
    nouns: dict[str, Noun] = {}
    for source in SOURCES:
        lines = (LISTS / f"{source}.txt").read_text(encoding="utf-8").splitlines()
        for word in (line.strip() for line in lines if line.strip() and not line.startswith("#")):
            known = subject_for(word)
            subject = known.name if known else None
            nouns.setdefault(word, Noun(word, [], subject)).lists.append(source)
    drawn = [noun for noun in nouns.values() if noun.subject]
    for number, noun in enumerate(random.Random(ORDER_SEED).sample(drawn, len(drawn)), start=1):
        noun.number = number
    return list(nouns.values())


def draw_all(nouns: Sequence[Noun], folder: Path, base: Path) -> list[Image.Image]:
    """The drawing of each noun; only those that are not in the folder yet are made."""
    missing = [noun for noun in nouns if not (folder / noun.file_name).is_file()]
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = ResidentPipeline.load(base) if missing else None
    for place, noun in enumerate(missing, start=1):
        assert pipeline is not None
        print(f"  {place} of {len(missing)}: {noun.noun}", file=sys.stderr, flush=True)
        config = RenderConfig(prompt=noun.noun, seed=SEED, steps=STEPS, guidance=GUIDANCE)
        unfinished = folder / f"{noun.file_name}.part"
        pipeline.render(config)[0].image.save(unfinished, format="PNG")
        unfinished.replace(folder / noun.file_name)
    return [Image.open(folder / noun.file_name).convert("RGB") for noun in nouns]


def labeled_grid(images: Sequence[Image.Image], labels: Sequence[str]) -> Image.Image:
    """The images in rows of twelve, each above its label; small ones enlarged pixel by pixel."""
    rows = -(-len(images) // COLUMNS)
    size = COLUMNS * (CELL + GAP) + GAP, rows * (CELL + LABEL + GAP) + GAP
    sheet, font = Image.new("RGB", size, PAPER), ImageFont.load_default(13)
    pen = ImageDraw.Draw(sheet)
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        left = GAP + (place % COLUMNS) * (CELL + GAP)
        upper = GAP + (place // COLUMNS) * (CELL + LABEL + GAP)
        resampling = Image.Resampling.NEAREST if image.width < CELL else Image.Resampling.LANCZOS
        sheet.paste(image.resize((CELL, CELL), resampling), (left, upper))
        lines = wrap(label, width=18, max_lines=2, placeholder="…")
        pen.multiline_text((left, upper + CELL + 2), "\n".join(lines), fill=INK, font=font)
    return sheet


def read_answers(path: Path) -> dict[int, str]:
    """The answers of a reader, by number. Raises SystemExit on a line without a number."""
    answers = {}
    for line in filter(str.strip, path.read_text(encoding="utf-8").splitlines()):
        number, _, answer = line.strip().partition(" ")
        if not number.rstrip(".:").isdigit():
            raise SystemExit(f"{path.name}: “{line.strip()}” does not begin with a number.")
        answers[int(number.rstrip(".:"))] = answer.strip()
    return answers


def look_at(
    nouns: Sequence[Noun], images: Sequence[Image.Image], eyes: Eyes, candidates: Sequence[str]
) -> None:
    """Store in each noun what the eyes see in its drawing; `candidates` empty: all their names."""
    guesses = name_images(eyes, images, candidates or None, top=EYES_NAMES)
    for noun, guessed in zip(nouns, guesses, strict=True):
        noun.seen = [(guess.name, round(guess.confidence, 4)) for guess in guessed]


def table(nouns: Sequence[Noun], readers: int) -> list[str]:
    """The counts by list as a Markdown table."""
    heads = ["list", "nouns", "in the artwork"]
    has_eyes = any(noun.seen for noun in nouns)
    heads += [f"named by the eyes (within {EYES_NAMES})"] if has_eyes else []
    heads += [f"named by reader {place + 1} (sure)" for place in range(readers)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    groups: Mapping[str, Sequence[Noun]] = {
        "COCO": [noun for noun in nouns if "coco" in noun.lists],
        "Dolch": [noun for noun in nouns if "dolch" in noun.lists],
        "together": nouns,
    }
    for name, group in groups.items():
        drawn = [noun for noun in group if noun.number]
        cells = [name, str(len(group)), str(len(drawn))]
        if has_eyes:
            within = [sum(noun.is_seen(count) for noun in drawn) for count in (1, EYES_NAMES)]
            cells.append(f"{within[0]} ({within[1]})")
        for place in range(readers):
            right = [noun for noun in drawn if noun.is_named(noun.read[place])]
            sure = sum(not noun.read[place].endswith("?") for noun in right)
            cells.append(f"{len(right)} ({sure})")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw, score and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument(
        "--base", type=Path, default=starter.PATH, help="a diffusers folder; default: starter"
    )
    parser.add_argument("--eyes", help="embedded, a CLIP folder, or a CLIP model on the Hub")
    parser.add_argument("--reader", type=Path, action="append", default=[], help="(repeatable)")
    options = parser.parse_args(arguments)
    nouns = read_nouns()
    drawn = [noun for noun in nouns if noun.subject]
    mark = inspect_base(options.base).fingerprint[:12]
    images = draw_all(drawn, options.out / f"drawings-{mark}", options.base)
    for path in options.reader:
        answers = read_answers(path)
        for noun in drawn:
            noun.read.append(answers.get(noun.number or 0, ""))
    if options.eyes:
        eyes = open_eyes(options.eyes, device="cpu")
        names = [] if eyes.names else [known.name for known in known_subjects()]
        look_at(drawn, images, eyes, names)
    _write_sheets(drawn, images, options.out)
    lines = table(nouns, len(options.reader))
    figures = {
        "base": mark,
        "eyes": options.eyes,
        "settings": {"seed": SEED, "steps": STEPS, "guidance": GUIDANCE},
        "nouns": [asdict(noun) for noun in nouns],
    }
    text = json.dumps(figures, indent=1, ensure_ascii=False)
    (options.out / "figures.json").write_text(text + "\n", encoding="utf-8")
    print(heading("bench.nouns"), "", *lines, "", sep="\n")
    if options.eyes:
        missed = [noun for noun in drawn if not noun.is_seen(EYES_NAMES)]
        seen = ", ".join(f"{noun.noun} ({noun.seen[0][0]})" for noun in missed)
        print(f"not within the eyes' first {EYES_NAMES} (what they saw): {seen}\n")
    for place in range(len(options.reader)):
        wrong = [noun for noun in drawn if not noun.is_named(noun.read[place])]
        seen = ", ".join(f"{noun.noun} ({noun.read[place] or '–'})" for noun in wrong)
        print(f"not named by reader {place + 1} (what was written): {seen}\n")
    print("without a drawing:", ", ".join(noun.noun for noun in nouns if not noun.subject))


def _write_sheets(nouns: Sequence[Noun], images: Sequence[Image.Image], folder: Path) -> None:
    labeled = labeled_grid(images, [noun.noun for noun in nouns])
    labeled.save(folder / "sheet.webp", quality=90, method=6)
    order = sorted(range(len(nouns)), key=lambda place: nouns[place].number or 0)
    numbers = [str(nouns[place].number) for place in order]
    numbered = labeled_grid([images[place] for place in order], numbers)
    numbered.save(folder / "sheet-numbered.webp", quality=90, method=6)


if __name__ == "__main__":
    main()
