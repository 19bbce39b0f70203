"""`brushwork train` (`python -m worker.core.training`): training without web or database."""

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from worker.core import starter
from worker.core.device import choose_device, has_device
from worker.core.training.command_line.console import Console, duration, share, size
from worker.core.training.command_line.flags import STARTER, Order, OrderError, read_order
from worker.core.training.config import TrainConfig

if TYPE_CHECKING:
    from worker.core.bases.family import BaseInfo
    from worker.core.bases.load import LoadedBase
    from worker.core.training.data.images import TrainingImage
    from worker.core.training.loop import TrainedAdapter

INTERRUPTED = 75  # EX_TEMPFAIL: saved, start it again to go on
FAILED = 1


def main(words: Sequence[str]) -> int:
    """Train what the words say: 0 done, 75 interrupted and saved, 1 failed with a sentence."""
    try:
        order = read_order(words)
    except OrderError as error:
        return _failed(error)
    console = Console(sys.stdout, columns=shutil.get_terminal_size().columns)
    console.listen()
    return _train(order, console)


def _train(order: Order, console: Console) -> int:
    # waiting threads must not spin: on shared cores that costs ten times the work itself.
    # Read when torch loads its threads, hence before the import.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from worker.core.bases.family import BaseModelError
    from worker.core.lora_files.canonical import AdapterError
    from worker.core.training.errors import TrainingError
    from worker.core.training.loop import Outcome

    try:
        images = _read_images(order)
        _warn_of_trigger_word(order.trigger_word, images, console)
        trained, base, config = _run(order, images, console)
        if trained.outcome is Outcome.INTERRUPTED:
            console.end_line()
            print(_interrupted(trained.steps))
            return INTERRUPTED
        assert trained.path is not None  # it was not canceled
        _write_download(trained, _learned(images), order, config, base, console)
        console.end_line()
        _print_result(trained.path, trained, console)
    except (OrderError, TrainingError, BaseModelError, AdapterError) as error:
        console.end_line()
        return _failed(error)
    except OSError as error:
        return _failed(f"A file could not be read or written: {error}.")
    return 0


def _read_images(order: Order) -> "list[TrainingImage]":
    """The pictures of the style, then those of the regularisation set."""
    from worker.core.training.data.images import read_folder

    images = read_folder(order.data)
    if order.regularisation:
        others = read_folder(order.regularisation)
        images += [replace(image, is_regularisation=True) for image in others]
    return images


def _warn_of_trigger_word(
    word: str | None, images: "Sequence[TrainingImage]", console: Console
) -> None:
    captions = [image.caption.casefold() for image in images if not image.is_regularisation]
    if word and not any(word.casefold() in caption for caption in captions):
        console.print(
            f"Warning: No caption says the trigger word “{word}”, so it will mean nothing."
        )


def _learned(images: "Sequence[TrainingImage]") -> int:
    return sum(not image.is_regularisation for image in images)


def _run(
    order: Order, images: "list[TrainingImage]", console: Console
) -> "tuple[TrainedAdapter, BaseInfo, TrainConfig]":
    import torch

    from worker.core.bases.load import load_base
    from worker.core.bases.threads import use_fastest_threads
    from worker.core.training.fallback import remembered
    from worker.core.training.resume_from import lay_start

    device = _device(order.device)
    if order.threads:
        torch.set_num_threads(order.threads)
    stored = device != "cpu"  # half of the memory until the training casts the UNet
    base = load_base(order.model, unet_as_stored=stored)
    asked = order.config(resolution=base.info.resolution, images=_learned(images))
    config = remembered(order.out, asked)
    if device == "cpu":
        use_fastest_threads(base, batch_size=config.batch_size, at_most=torch.get_num_threads())
    info, start = base.info, order.continue_from
    if start:
        lay_start(start, order.out, steps=config.steps, base=info.fingerprint)
    again = config != asked or start is not None
    trained = _try(order, images, console, config, base, device, again=again)
    while trained is None:
        del base  # never two of them in memory
        config = _less_memory(order.out, asked, config, device, console)
        base = load_base(order.model, unet_as_stored=stored)
        trained = _try(order, images, console, config, base, device, again=True)
    return trained, info, config


def _try(
    order: Order,
    images: "list[TrainingImage]",
    console: Console,
    config: TrainConfig,
    base: "LoadedBase",
    device: str,
    *,
    again: bool = False,
) -> "TrainedAdapter | None":
    """What the training came to; None when the memory was not enough and less may do.

    `again`: it goes on from a checkpoint of another config, of the one that did not fit say.
    """
    from worker.core.training.errors import OutOfMemoryError
    from worker.core.training.fallback import step_down
    from worker.core.training.loop import train

    try:
        return train(
            config,
            images,
            console,
            base=base,
            out=order.out,
            cache=order.cache,
            device=device,
            continues=again,
        )
    except OutOfMemoryError:
        if step_down(config) is None:
            raise
        return None  # not dealt with here: the exception holds on to what was in memory


def _less_memory(
    out: Path, asked: TrainConfig, config: TrainConfig, device: str, console: Console
) -> TrainConfig:
    """The next config down, said and kept, so that the same command goes on with it later."""
    import torch

    from worker.core.training.fallback import remember, step_down
    from worker.core.training.memory import release_memory

    found = step_down(config)
    assert found is not None
    config, sentence = found
    console.print(f"Warning: There was not enough memory, so the training starts again. {sentence}")
    remember(out, asked=asked, used=config)
    release_memory()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    return config


def _device(setting: str) -> str:
    """The torch device for the command's setting; UnsupportedError when it is not here."""
    from worker.core.training.errors import UnsupportedError

    chosen = choose_device(setting)
    if not has_device(chosen):
        raise UnsupportedError(f"torch finds no device {chosen} here; --device cpu always works.")
    return chosen


def _write_download(
    trained: "TrainedAdapter",
    images: int,
    order: Order,
    config: TrainConfig,
    base: "BaseInfo",
    console: Console,
) -> None:
    """Put the file for other programs in the place of the canonical one; it is read back."""
    from worker.core.lora_files import canonical
    from worker.core.lora_files.export import (
        AdapterDtype,
        AdapterFormat,
        ExportError,
        ExportFacts,
        export,
    )

    path = trained.path
    assert path is not None
    adapter = canonical.load(path)
    facts = ExportFacts(
        title=order.name,
        slug=order.name,
        base_name=_base_name(order.model),
        resolution=config.resolution or base.resolution,
        created=datetime.now(UTC),
        training_seconds=trained.seconds,
        trigger_words=(order.trigger_word,) if order.trigger_word else (),
        prediction_type=config.prediction_type or base.prediction_type,
        images=images,
        cover=_newest_sample(order.out),
        train_config=config.model_dump_json(),
    )
    kohya, family = AdapterFormat.KOHYA, base.family
    try:
        dtype = AdapterDtype(order.dtype)
        export(adapter, path, format=kohya, dtype=dtype, family=family, facts=facts)
    except ExportError:
        if order.dtype == AdapterDtype.FP32:
            raise
        fp32 = AdapterDtype.FP32
        export(adapter, path, format=kohya, dtype=fp32, family=family, facts=facts)
        console.print(f"The adapter does not survive {order.dtype}; it was written as fp32.")


def _newest_sample(out: Path) -> Path | None:
    """A picture drawn with the adapter, of the last row there is; step 0 shows the bare base."""
    rows = sorted(folder for folder in (out / "samples").glob("step-*") if int(folder.name[5:]))
    return next(iter(sorted(rows[-1].glob("*.png"))), None) if rows else None


def _base_name(model: Path) -> str:
    if model == starter.PATH or model.resolve() == starter.PATH.resolve():
        return STARTER
    return model.stem if model.is_file() else model.resolve().name


def _print_result(path: Path, trained: "TrainedAdapter", console: Console) -> None:
    print(f"{path} ({size(path.stat().st_size)})")
    if console.facts:
        print(f"Trained {share(console.facts)}.")
    peak = trained.peak_memory_bytes / 2**20
    print(
        f"{trained.steps} steps, {duration(trained.seconds)} in all, "
        f"{peak:,.0f} MiB of memory at most."
    )


def _interrupted(steps: int) -> str:
    if not steps:
        return "Interrupted before the first step; start it again with the same command."
    return f"Interrupted after step {steps} and saved; start it again to go on from there."


def _failed(reason: object) -> int:
    print(reason, file=sys.stderr)
    return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
