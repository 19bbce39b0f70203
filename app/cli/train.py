"""`brushwork train`, `evaluate` and `name`: commands of the core, without server or database."""

from __future__ import annotations

import json
import os
import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from app.registry.config import Settings
from app.registry.hub_source import HubSource, read_source
from app.registry.wording import size_text
from worker.core.device import OFFLINE_LIBRARIES

if TYPE_CHECKING:
    from worker.core.hub.models import HubReference

CORES = {"train": "worker.core.training", "evaluate": "worker.core.evaluate_folder"}
"""The module of the core that carries out each command on a base model."""
MODEL, DOWNLOAD = "--model", "--download"
BASE_MODEL = re.compile(r"^--base-model(?==|$)")  # the same
PROGRESS_STEP = 5  # percent
NOT_HERE = (
    "“{name}” is not on this machine. Add --download to download it from the Hugging Face Hub to "
    "{folder}, or set --base-model to a diffusers folder or a .safetensors file."
)
OFF = "Hugging Face access is off (BRUSHWORK_HUB=off). Set BRUSHWORK_HUB=on to download models."


class MissingModelError(Exception):
    """The base model cannot be used; the message says what to do."""


def run(arguments: Namespace, settings: Settings) -> int:
    """Replace this process with a command of the core, which gets all flags."""
    environment = dict(os.environ)
    try:
        if arguments.command == "name":
            line = [sys.executable, "-m", "worker.core.eyes", "name", *arguments.words]
            environment |= OFFLINE_LIBRARIES if settings.hub == "off" else {}
        else:
            words = with_model_here(arguments.words, settings)
            line = command(words, settings, CORES[arguments.command])
        sys.stdout.flush()
        os.execve(sys.executable, line, environment)
    except MissingModelError as error:
        print(error, file=sys.stderr)
        return 2


def command(words: list[str], settings: Settings, module: str) -> list[str]:
    """The core's command line; the user's arguments come last and override the settings."""
    ours = ["--device", settings.device, "--threads", str(settings.threads)]
    return [sys.executable, "-m", module, *ours, *words]


def with_model_here(words: list[str], settings: Settings) -> list[str]:
    """The arguments with a Hub name replaced by its local path; downloads with `--download`."""
    rest = [BASE_MODEL.sub(MODEL, word) for word in words if word != DOWNLOAD]
    place = next(
        (at for at, word in enumerate(rest) if word == MODEL or word.startswith(f"{MODEL}=")),
        len(rest),
    )
    count = 0
    if place == len(rest):
        value = _model_of_job(rest)
    elif rest[place] == MODEL:
        value, count = "".join(rest[place + 1 : place + 2]), 2
    else:
        value, count = rest[place].partition("=")[2], 1
    source = None if Path(value).exists() else read_source(value)
    if source is None:
        return rest
    path = _path_of(source, settings, may_download=DOWNLOAD in words)
    return [*rest[:place], f"{MODEL}={path}", *rest[place + count :]]


def _model_of_job(words: list[str]) -> str:
    """The base model in a JOB.json among the arguments; empty if there is none."""
    for before, word in zip(["", *words], words, strict=False):
        if word.endswith(".json") and before != "--config":
            try:
                job = json.loads(Path(word).read_bytes())
            except (OSError, ValueError):  # the core will report the problem
                return ""
            model = job.get("model") if isinstance(job, dict) else None
            return model if isinstance(model, str) else ""
    return ""


def _path_of(source: HubSource, settings: Settings, *, may_download: bool) -> Path:
    # here, because it loads huggingface_hub, which a local base model does not need
    from worker.core.hub.models import HubReference, find_local_model

    reference = HubReference(source.repo, source.revision, source.file)
    home = settings.hub_models / source.folder
    found = find_local_model(reference, home)
    if found is not None:
        return found.path
    if not may_download:
        raise MissingModelError(NOT_HERE.format(name=source, folder=settings.hub_models))
    if settings.hub == "off":
        raise MissingModelError(OFF)
    return _download_model(reference, home, settings)


def _download_model(reference: HubReference, home: Path, settings: Settings) -> Path:
    from worker.core.hub.errors import Access, explain_error  # as in _path_of
    from worker.core.hub.models import download_model

    token = settings.hub_token.get_secret_value() if settings.hub_token else None
    access = Access(settings.hub_endpoint.rstrip("/"), token)
    reported = -PROGRESS_STEP

    def tell(_file: str, done: int, total: int) -> None:
        nonlocal reported
        percent = 100 * done // total if total else 100
        if percent >= reported + PROGRESS_STEP:
            reported = percent
            print(
                f"{reference.repo}: {size_text(done)} of {size_text(total)} ({percent} %)",
                file=sys.stderr,
            )

    try:
        return download_model(reference, home, access, on_progress=tell).path
    except Exception as error:
        found = explain_error(error, reference.repo, access)
        if found is None:
            raise
        raise MissingModelError(str(found)) from error
