"""Evaluates the checkpoints in the folder of a training. Importing it loads torch and diffusers."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch

from worker.core.bases.inspect import inspect_base
from worker.core.evaluation.drawing import AdapterFile, FolderDrawing
from worker.core.evaluation.errors import EvaluationError
from worker.core.evaluation.evaluate import Captioned, Question, evaluate, evaluate_weights
from worker.core.evaluation.intervals import FEWEST
from worker.core.evaluation.report import CheckpointReport, WeightReport
from worker.core.evaluation.subjects import MOST_PLAIN, MOST_SUBJECTS, propose_subjects, spread
from worker.core.eyes import open_eyes
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.lora_files.weights import weight_name
from worker.core.old_names import rename_old
from worker.core.starter.sheet import contact_sheet
from worker.core.training.checkpoints import checkpoints_in, read_manifest
from worker.core.training.command_line.flags import data_folders
from worker.core.training.command_line.run import read_images
from worker.core.training.data.images import TrainingImage, dataset_fingerprint, open_image
from worker.core.training.data.split import split
from worker.core.training.events import ADAPTERS
from worker.core.training.presets import default_guidance, prompts_of, usual_form

SHOWN = 8
"""Subjects in the sheet of images."""
MAX_FILE = 100_000
"""Bytes of a file of subjects that are read."""


def evaluate_training(
    options: Namespace, device: str, on_image: Callable[[int, int], None]
) -> tuple[CheckpointReport | WeightReport, Path]:
    """The report on the checkpoints in `options.out`, or weights, and the sheet of their images.

    `options` are those of `brushwork evaluate`; `on_image` gets the images that are drawn and those
    of the whole evaluation. Raises EvaluationError and the errors of what it
    reads and draws.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    files = _candidates(options)
    base = inspect_base(options.model)
    question = _question(options, base.fingerprint)
    renders = len(question.prompts) if options.weights else question.renders
    total = len(question.prompts) + len(question.plain) + renders * len(files)
    drawn = count(1)
    drawing = FolderDrawing(
        ResidentPipeline.load(options.model, device),
        options.out / "evaluation",
        files,
        guidance=default_guidance(base.resolution, base.family),
        on_image=lambda: on_image(next(drawn), total),
    )
    eyes = open_eyes(options.eyes, device=device)
    report: CheckpointReport | WeightReport
    if options.weights:
        weights = [file.weight for file in files.values()]
        report = evaluate_weights(question, weights, drawing=drawing, eyes=eyes)
    else:
        report = evaluate(question, [*files], drawing=drawing, eyes=eyes)
    sheet = options.out / "evaluation" / "sheet.png"
    prompts = question.prompts[:SHOWN]
    rows = [drawing.images(name, prompts) for name in (None, *files)]
    contact_sheet(["base", *files], question.subjects[:SHOWN], rows).save(sheet)
    return report, sheet


def _candidates(options: Namespace) -> dict[str, AdapterFile]:
    """The checkpoints to compare by name, or one at the weights that were asked for."""
    if options.checkpoints < 1:
        raise EvaluationError("--checkpoints must be at least 1.")
    saved = _adapters(options.out)
    if options.step is not None:
        name = f"step {options.step}"
        if name not in saved:
            raise EvaluationError(f"There is no checkpoint of step {options.step}.")
        saved = {name: saved[name]}
    if not options.weights:
        return {name: saved[name] for name in spread([*saved], options.checkpoints)}
    (*_, last), weights = saved.values(), sorted(set(options.weights))
    return {weight_name(weight): replace(last, weight=weight) for weight in weights}


def _adapters(out: Path) -> dict[str, AdapterFile]:
    """The adapters of all checkpoints by name, the oldest first. Raises EvaluationError."""
    paths = checkpoints_in(out / "checkpoints" / ADAPTERS)
    if not paths:
        raise EvaluationError(
            f"There are no checkpoints in {out}. Give the --out folder of brushwork train."
        )
    return {f"step {int(path.stem.rpartition('-')[2])}": AdapterFile(path) for path in paths}


def _question(options: Namespace, base: str) -> Question:
    """The prompts and images. Raises EvaluationError if they are of another training."""
    if options.subjects < FEWEST:
        raise EvaluationError(f"Too few subjects. Use --subjects {FEWEST} or more.")
    images = read_images(data_folders(options.data), options.regularization)
    identity = _identity(options.out)
    if identity["pictures"] != dataset_fingerprint(images):
        raise EvaluationError(
            f"The training in {options.out} learned from other images or captions. Give its --data "
            "and --regularization as they were."
        )
    if identity["base_model"] != base:
        raise EvaluationError(f"The training in {options.out} has another base model. Give that.")
    seed = identity.get("validation_seed", identity["seed"])
    trained, held_out = split(images, identity["validation_share"], seed=seed)
    own = [image for image in trained if not image.is_regularization]
    captions = [text for image in (*own, *held_out) for text in image.texts]
    if options.prompt_set is None:
        subjects = propose_subjects(captions, options.subjects)
    else:
        subjects = _subjects_in(options.prompt_set)
    prompts = prompts_of(subjects, usual_form(options.trigger_word))
    plain = subjects[:MOST_PLAIN] if options.trigger_word and not options.weights else []
    return Question(prompts, subjects, _captioned(own), _captioned(held_out), plain)


def _subjects_in(file: Path) -> list[str]:
    """The subjects in the lines of a file. Raises EvaluationError and OSError."""
    with file.open("rb") as opened:
        lines = opened.read(MAX_FILE).decode(errors="replace").splitlines()
    subjects = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not FEWEST <= len(subjects) <= MOST_SUBJECTS:
        raise EvaluationError(
            f"{file} has {len(subjects):,} subjects. Write {FEWEST} to {MOST_SUBJECTS} of them, "
            "one in each line."
        )
    return subjects


def _identity(out: Path) -> dict[str, Any]:
    """What the newest training state says of its training. Raises CheckpointError."""
    states = checkpoints_in(out / "checkpoints")
    if not states:
        raise EvaluationError(f"The training states in {out} are gone: train again.")
    return rename_old(read_manifest(states[-1])["identity"])


def _captioned(images: Sequence[TrainingImage]) -> list[Captioned]:
    return [Captioned(open_image(one), one.caption) for one in images]
