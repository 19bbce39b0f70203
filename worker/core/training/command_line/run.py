"""Runs a training for the command line: images and base model in, a proved download out.

Importing this module loads torch and diffusers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import torch

from worker.core import starter
from worker.core.atomic_write import write_atomically
from worker.core.bases.family import BaseModelError
from worker.core.bases.inspect import inspect_base
from worker.core.bases.load import LoadedBase
from worker.core.bases.threads import use_fastest_threads
from worker.core.device import choose_device, has_device
from worker.core.lora_files import canonical
from worker.core.lora_files.errors import AdapterError
from worker.core.lora_files.export import ExportError, export
from worker.core.lora_files.metadata import AdapterMetadata
from worker.core.training.checkpoints import adapter_name, copy_start_checkpoint
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
from worker.core.training.events import ADAPTERS, Arithmetic, Commands, Event
from worker.core.training.fallback import load_fallback, reduce_memory_use, save_fallback
from worker.core.training.load import load_for_training
from worker.core.training.memory import release_memory
from worker.core.training.outcome import Outcome, TrainedAdapter
from worker.core.training.presets import usual_form
from worker.core.training.train import train
from worker.core.wording import duration, size_text
from worker.core.words import FileFormat, WeightDtype

ARITHMETIC_FILE = "arithmetic.json"


def run(arguments: TrainArguments, console: Console) -> int:
    """Train and write the download; returns the exit code."""
    try:
        images = read_images(arguments.data, arguments.regularization)
        _warn_of_missing_trigger_word(arguments, images, console)
        training = FolderTraining(arguments, images, console)
        trained = training.train()
        if trained.outcome is Outcome.INTERRUPTED:
            console.end_line()
            print(_interrupted_message(trained.steps))
            return INTERRUPTED
        assert trained.path is not None  # not canceled
        training.write_download(trained)
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


class FolderTraining:
    """A training by the arguments of a command: with less memory where that has to be, and saved.

    Raises UnsupportedError if this machine lacks the device, BaseModelError and ArgumentsError.
    """

    def __init__(
        self, arguments: TrainArguments, images: list[TrainingImage], console: Console
    ) -> None:
        self._arguments, self._images, self._console = arguments, images, console
        self._style_images = sum(not image.is_regularization for image in images)
        self._device = _find_device(arguments.device)
        if arguments.threads:
            torch.set_num_threads(arguments.threads)
        self._base = inspect_base(arguments.model)
        self._requested = arguments.config(
            resolution=self._base.resolution, images=self._style_images, family=self._base.family
        )
        self._config = load_fallback(arguments.out, self._requested)

    def train(self) -> TrainedAdapter:
        """Train, with ever smaller configs while memory does not suffice."""
        known = self._arithmetic_file.load()
        base = self._load_base(known)
        if self._device == "cpu" and known is None:
            at_most = torch.get_num_threads()
            use_fastest_threads(base, batch_size=self._config.batch_size, at_most=at_most)
        start, out = self._arguments.continue_from, self._arguments.out
        if start:
            copy_start_checkpoint(start, out, steps=self._config.steps, base=self._base.fingerprint)
        continues = self._config != self._requested or start is not None
        trained = self._try_config(base, continues=continues)
        while trained is None:
            del base  # never two in memory
            self._use_less_memory()
            base = self._load_base()
            trained = self._try_config(base, continues=True)
        return trained

    @property
    def _arithmetic_file(self) -> ArithmeticFile:
        """The file for the config of now."""
        return ArithmeticFile(
            self._arguments.out,
            self._config,
            fingerprint=self._base.fingerprint,
            threads=self._arguments.threads,
        )

    def _load_base(self, known: Arithmetic | None = None) -> LoadedBase:
        """The base in the precision that an earlier start has chosen, else as the config says."""
        return load_for_training(
            self._arguments.model,
            device=self._device,
            config=self._config,
            precision=Precision(known.precision) if known else Precision.AUTO,
        )

    def _try_config(self, base: LoadedBase, *, continues: bool) -> TrainedAdapter | None:
        """The result of the training; None when memory was too small and a smaller config may fit.

        `continues`: the checkpoint may be of another config, such as the one that did not fit.
        """
        try:
            return train(
                self._config,
                self._images,
                self,
                base=base,
                out=self._arguments.out,
                cache=self._arguments.cache,
                device=self._device,
                arithmetic=self._arithmetic_file.load(),
                continues=continues,
                prompt_form=usual_form(self._arguments.trigger_word),
            )
        except OutOfMemoryError:
            if reduce_memory_use(self._config, self._base.family) is None:
                raise
            return None  # not handled here: the exception keeps objects in memory

    def on_event(self, event: Event) -> None:
        """Show an event; the arithmetic is saved as soon as it is known."""
        if isinstance(event, Arithmetic):
            self._arithmetic_file.save(event)
        self._console.on_event(event)

    def poll(self) -> Commands:
        """The command that was requested."""
        return self._console.poll()

    def _use_less_memory(self) -> None:
        """Go on with the next smaller config, saved so that the same command continues with it."""
        found = reduce_memory_use(self._config, self._base.family)
        assert found is not None
        self._config, sentence = found
        self._console.print(f"Warning: Out of memory; the training restarts with less. {sentence}")
        save_fallback(self._arguments.out, requested=self._requested, used=self._config)
        release_memory()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()

    def write_download(self, trained: TrainedAdapter) -> None:
        """Replace the canonical file by the file for other programs, which is read back."""
        arguments, config, base, path = self._arguments, self._config, self._base, trained.path
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
            images=self._style_images,
            cover=_newest_sample(arguments.out),
            train_config=config.model_dump(mode="json"),
        )
        kohya, dtype = FileFormat.KOHYA, WeightDtype(arguments.dtype)
        try:
            export(adapter, path, format=kohya, dtype=dtype, metadata=metadata)
        except ExportError:
            if dtype is WeightDtype.FP32:
                raise
            export(adapter, path, format=kohya, dtype=WeightDtype.FP32, metadata=metadata)
            self._console.print(
                f"The adapter loses too much in {dtype}, so it was written as fp32."
            )


def _find_device(setting: str) -> str:
    """The torch device for the setting; UnsupportedError when this machine lacks it."""
    chosen = choose_device(setting)
    if not has_device(chosen):
        raise UnsupportedError(f"torch does not find the device {chosen}. Use --device cpu.")
    return chosen


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


class ArithmeticFile:
    """Keeps the arithmetic that a training chose, for the next start of the same command.

    The number of threads and the precision are chosen by timing, so two starts can choose
    differently, and on a CPU they affect the last bits of the result. A training that was killed
    before its first checkpoint finds its choice in this file in its folder, which is valid for one
    config, base model and setting of threads.

    `fingerprint` is the base model's. `threads` is the number that was requested, 0 for all cores.
    """

    def __init__(self, out: Path, config: TrainConfig, *, fingerprint: str, threads: int) -> None:
        self._path = out / ARITHMETIC_FILE
        self._training = {
            "config": config.model_dump(mode="json"),
            "base_model": fingerprint,
            "threads": threads,
        }

    def load(self) -> Arithmetic | None:
        """The arithmetic of an earlier start of this training; None if there was none."""
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            config = TrainConfig.model_validate(content["training"]["config"])
            known = content["training"] | {"config": config.model_dump(mode="json")}
            if known == self._training:
                found = Arithmetic(**content["arithmetic"])
                return found if found.threads > 0 else None
        except (OSError, ValueError, KeyError, TypeError):
            pass  # chosen by timing, as at the first start
        return None

    def save(self, arithmetic: Arithmetic) -> None:
        """Write the arithmetic of this start."""
        content = {"training": self._training, "arithmetic": asdict(arithmetic)}
        write_atomically(self._path, json.dumps(content, indent=1).encode())
