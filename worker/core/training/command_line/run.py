"""Runs a training for the command line: images and base model in, a proved download out.

Importing this module loads torch and diffusers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from worker.core import starter
from worker.core.bases.family import BaseInfo, BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.bases.load import LoadedBase
from worker.core.bases.threads import use_fastest_threads
from worker.core.device import choose_device, has_device
from worker.core.lora_files import canonical
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.export import ExportError, export
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.training.checkpoints.folder import adapter_name
from worker.core.training.checkpoints.resume_from import copy_start_checkpoint
from worker.core.training.command_line.arithmetic import ArithmeticFile, SavedArithmetic
from worker.core.training.command_line.console import (
    INTERRUPTED,
    RUINED,
    Console,
    format_share,
    print_failure,
)
from worker.core.training.command_line.flags import (
    STARTER,
    ArgumentsError,
    DataFolder,
    TrainArguments,
)
from worker.core.training.config import Precision, TrainConfig
from worker.core.training.data.epochs import MAX_REPEATS
from worker.core.training.data.images import TrainingImage, read_folder
from worker.core.training.errors import OutOfMemoryError, TrainingError, UnsupportedError
from worker.core.training.events import ADAPTERS, Arithmetic
from worker.core.training.fallback import load_fallback, reduce_memory_use, save_fallback
from worker.core.training.load import load_for_training
from worker.core.training.memory import release_memory
from worker.core.training.outcome import Outcome, TrainedAdapter
from worker.core.training.presets import usual_form
from worker.core.training.train import train
from worker.core.wording import duration, size_text
from worker.core.words import FileFormat, WeightDtype


def run(arguments: TrainArguments, console: Console) -> int:
    """Train and write the download; returns the exit code."""
    try:
        images = read_images(arguments.data, arguments.regularization)
        _warn_of_missing_trigger_word(arguments, images, console)
        trained, base, config = _train(arguments, images, console)
        if trained.outcome is Outcome.INTERRUPTED:
            console.end_line()
            print(_interrupted_message(trained.steps))
            return INTERRUPTED
        assert trained.path is not None  # not canceled
        _write_download(trained, _count_style_images(images), arguments, config, base, console)
        console.end_line()
        _print_result(trained.path, trained, console)
        if trained.verdict.reason:
            return _print_ruined(trained, arguments.out)
    except (ArgumentsError, TrainingError, BaseModelError, AdapterError) as error:
        console.end_line()
        return print_failure(error)
    except OSError as error:
        return print_failure(f"A file could not be read or written: {error}.")
    return 0


def read_images(folders: Sequence[DataFolder], regularization: Path | None) -> list[TrainingImage]:
    """The images of the style, followed by the regularization images.

    Raises DatasetError and ArgumentsError.
    """
    images: list[TrainingImage] = []
    for number, folder in enumerate(folders):
        for image in read_folder(folder.path):
            uses = image.repeats * folder.repeats
            if uses > MAX_REPEATS:
                raise ArgumentsError(
                    f"{image.path.name} would be used {uses:,} times in an epoch; at most "
                    f"{MAX_REPEATS:,} are possible. Use fewer repeats of {folder.path}."
                )
            images.append(replace(image, repeats=uses, dataset=number))
    if regularization:
        others = read_folder(regularization)
        images += [replace(image, is_regularization=True) for image in others]
    return images


def _warn_of_missing_trigger_word(
    arguments: TrainArguments, images: Sequence[TrainingImage], console: Console
) -> None:
    word = arguments.trigger_word
    if not word:
        return
    having = {
        image.dataset
        for image in images
        if not image.is_regularization
        and any(word.casefold() in caption.casefold() for caption in image.texts)
    }
    if not having:
        console.print(
            f"Warning: No caption contains the trigger word “{word}”, so it will have no effect."
        )
        return
    for number, folder in enumerate(arguments.data):
        if number not in having:
            console.print(f"Warning: No caption in {folder.path} contains “{word}”.")


def _count_style_images(images: Sequence[TrainingImage]) -> int:
    return sum(not image.is_regularization for image in images)


def _train(
    arguments: TrainArguments, images: list[TrainingImage], console: Console
) -> tuple[TrainedAdapter, BaseInfo, TrainConfig]:
    device = _find_device(arguments.device)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    info = inspect_base(arguments.model)
    requested = arguments.config(resolution=info.resolution, images=_count_style_images(images))
    config = load_fallback(arguments.out, requested)
    known = _arithmetic_file(arguments, config, info).load()
    base = _load_base(arguments, config, device, known)
    if device == "cpu" and known is None:
        use_fastest_threads(base, batch_size=config.batch_size, at_most=torch.get_num_threads())
    start = arguments.continue_from
    if start:
        copy_start_checkpoint(start, arguments.out, steps=config.steps, base=info.fingerprint)
    continues = config != requested or start is not None
    trained = _try_config(arguments, images, console, config, base, device, continues=continues)
    while trained is None:
        del base  # never two in memory
        config = _less_memory(arguments.out, requested, config, device, console)
        base = _load_base(arguments, config, device)
        trained = _try_config(arguments, images, console, config, base, device, continues=True)
    return trained, info, config


def _arithmetic_file(
    arguments: TrainArguments, config: TrainConfig, info: BaseInfo
) -> ArithmeticFile:
    return ArithmeticFile(
        arguments.out, config, fingerprint=info.fingerprint, threads=arguments.threads
    )


def _load_base(
    arguments: TrainArguments, config: TrainConfig, device: str, known: Arithmetic | None = None
) -> LoadedBase:
    """The base in the precision that an earlier start has chosen, else in the one of the config."""
    precision = Precision(known.precision) if known else Precision.AUTO
    return load_for_training(arguments.model, device=device, config=config, precision=precision)


def _try_config(
    arguments: TrainArguments,
    images: list[TrainingImage],
    console: Console,
    config: TrainConfig,
    base: LoadedBase,
    device: str,
    *,
    continues: bool = False,
) -> TrainedAdapter | None:
    """The result of the training; None when memory was too small and a smaller config may fit.

    `continues`: the checkpoint may be of another config, such as the one that did not fit.
    """
    file = _arithmetic_file(arguments, config, base.info)
    try:
        return train(
            config,
            images,
            SavedArithmetic(console, file),
            base=base,
            out=arguments.out,
            cache=arguments.cache,
            device=device,
            arithmetic=file.load(),
            continues=continues,
            prompt_form=usual_form(arguments.trigger_word),
        )
    except OutOfMemoryError:
        if reduce_memory_use(config) is None:
            raise
        return None  # not handled here: the exception keeps objects in memory


def _less_memory(
    out: Path, requested: TrainConfig, config: TrainConfig, device: str, console: Console
) -> TrainConfig:
    """The next smaller config, printed and saved so that the same command continues with it."""
    found = reduce_memory_use(config)
    assert found is not None
    config, sentence = found
    console.print(f"Warning: Out of memory; the training restarts with less. {sentence}")
    save_fallback(out, requested=requested, used=config)
    release_memory()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return config


def _find_device(setting: str) -> str:
    """The torch device for the setting; UnsupportedError when this machine lacks it."""
    chosen = choose_device(setting)
    if not has_device(chosen):
        raise UnsupportedError(f"torch does not find the device {chosen}. Use --device cpu.")
    return chosen


def _write_download(
    trained: TrainedAdapter,
    images: int,
    arguments: TrainArguments,
    config: TrainConfig,
    base: BaseInfo,
    console: Console,
) -> None:
    """Replace the canonical file by the file for other programs, which is read back."""
    path = trained.path
    assert path is not None
    adapter = canonical.load_adapter(path)
    metadata = AdapterMetadata(
        title=arguments.name,
        slug=arguments.name,
        family=base.family,
        base_name=_base_name(arguments.model),
        resolution=config.resolution or base.resolution,
        created=datetime.now(UTC),
        training_seconds=trained.seconds,
        trigger_words=(arguments.trigger_word,) if arguments.trigger_word else (),
        prediction_type=config.prediction_type or base.prediction_type,
        images=images,
        cover=_newest_sample(arguments.out),
        train_config=config.model_dump(mode="json"),
    )
    kohya = FileFormat.KOHYA
    try:
        dtype = WeightDtype(arguments.dtype)
        export(adapter, path, format=kohya, dtype=dtype, metadata=metadata)
    except ExportError:
        if arguments.dtype == WeightDtype.FP32:
            raise
        fp32 = WeightDtype.FP32
        export(adapter, path, format=kohya, dtype=fp32, metadata=metadata)
        console.print(
            f"The adapter loses too much in {arguments.dtype}, so it was written as fp32."
        )


def _newest_sample(out: Path) -> Path | None:
    """A sample of the newest step with the adapter; step 0 shows the base alone."""
    rows = sorted(folder for folder in (out / "samples").glob("step-*") if int(folder.name[5:]))
    return next(iter(sorted(rows[-1].glob("*.png"))), None) if rows else None


def _base_name(model: Path) -> str:
    if model == starter.PATH or model.resolve() == starter.PATH.resolve():
        return STARTER
    return model.stem if model.is_file() else model.resolve().name


def _print_result(path: Path, trained: TrainedAdapter, console: Console) -> None:
    print(f"{path} ({size_text(path.stat().st_size)})")
    if console.facts:
        print(f"Trained {format_share(console.facts)}.")
    print(
        f"{trained.steps} steps, {duration(trained.seconds)} in total, "
        f"peak memory {size_text(trained.peak_memory_bytes)}."
    )


def _print_ruined(trained: TrainedAdapter, out: Path) -> int:
    """Print why the adapter is worse than none, and the checkpoint to use instead."""
    print(f"Ruined: {trained.verdict.reason}", file=sys.stderr)
    kept = (
        out / "checkpoints" / ADAPTERS / adapter_name(step) for step in trained.verdict.good_steps
    )
    if good := next((path for path in kept if path.is_file()), None):
        print(f"Use the adapter of an earlier checkpoint instead: {good}", file=sys.stderr)
    return RUINED


def _interrupted_message(steps: int) -> str:
    if not steps:
        return "Interrupted before the first step. Run the same command to start again."
    return f"Interrupted after step {steps} and saved. Run the same command to continue."
