"""The arguments of `brushwork train`: a flag for every setting, and those of the run itself.

Imports neither torch nor PIL, so that `--help` is fast.
"""

import json
import re
from argparse import (
    SUPPRESS,
    ArgumentParser,
    ArgumentTypeError,
    BooleanOptionalAction,
    RawDescriptionHelpFormatter,
)
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from worker.core import starter
from worker.core.families.facts.family_facts import reasons_against
from worker.core.families.family import BaseFamily
from worker.core.old_names import rename_old
from worker.core.training.command_line.settings import settings
from worker.core.training.config import Group, TrainConfig, TrainJob
from worker.core.training.data.epochs import MAX_REPEATS
from worker.core.training.presets import (
    Preset,
    for_optimizer,
    hold_out_share,
    preset_config,
    usual_form,
)
from worker.core.words import WeightDtype, values

PLACES = ("model", "data", "out", "cache")
REQUIRED = ("model", "data", "out")
STARTER = "starter"
MAX_FOLDERS = 20  # of one training
MAX_SHOWN = 100  # characters of a folder that an error repeats
USAGE = """brushwork train --base-model FOLDER|FILE --data FOLDER --out FOLDER [--SETTING VALUE ...]
       brushwork train JOB.json [--SETTING VALUE ...]"""
DESCRIPTION = """\
Train an adapter on a folder of images, without web, database or broker.

Writes adapter.safetensors (in the kohya format, which every LoRA reader understands) into the
folder --out, with samples/ and checkpoints/. Ctrl-C saves a checkpoint; run the same command again
to continue."""


class ArgumentsError(Exception):
    """The arguments cannot be used; the message is a sentence for people."""


@dataclass(frozen=True, slots=True)
class DataFolder:
    """A folder of images, and how often an epoch uses it; an image repeats its own times this."""

    path: Path
    repeats: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainArguments:
    """All arguments of a command: paths, what to train, and metadata for the file.

    `options` are the fields of TrainConfig that a file or a flag names. The others come from the
    preset, or without one from TrainConfig's defaults, adjusted to the optimizer.
    """

    model: Path
    data: tuple[DataFolder, ...]
    out: Path
    cache: Path | None
    regularization: Path | None
    continue_from: Path | None
    preset: Preset | None
    options: Mapping[str, Any]
    name: str
    trigger_word: str | None
    dtype: str
    device: str
    threads: int

    @property
    def evaluate(self) -> bool:
        """True if the checkpoints are to be compared at the end."""
        return bool(self.options.get("evaluate"))

    def config(self, *, resolution: int, images: int, family: BaseFamily) -> TrainConfig:
        """The complete config, for a base of this native resolution (pixels) and family, and for a
        number of images.

        Raises ArgumentsError when the preset and the other values conflict, and for settings that
        the family does not have.
        """
        usual = TrainConfig(validation_share=hold_out_share(images) if self.evaluate else 0)
        if self.preset:
            usual = preset_config(
                self.preset,
                resolution=resolution,
                images=images,
                family=family,
                prompt_form=usual_form(self.trigger_word),
                evaluate=self.evaluate,
            )
        values = for_optimizer(usual, self.options.get("optimizer")).model_dump()
        try:
            config = TrainConfig.model_validate({**values, **self.options})
        except ValidationError as error:
            raise ArgumentsError(" ".join(_error_sentences(error, None))) from None
        if reasons := reasons_against(family.facts.options.training, config):
            flags = {setting.name: setting.flag for setting in settings()}
            said = (f"{name} ({flags[name]}): {reason}" for name, reason in reasons.items())
            raise ArgumentsError(" ".join(said))
        return config


def build_parser() -> ArgumentParser:
    """The argument parser of the command."""
    parser = ArgumentParser(
        "brushwork train",
        usage=USAGE,
        description=DESCRIPTION,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_places(parser)
    _add_choices(parser)
    sections = {group: parser.add_argument_group(group.value) for group in Group}
    for setting in settings():
        options: dict[str, Any] = {"dest": setting.name, "default": SUPPRESS}
        options["help"] = setting.help.replace("%", "%%")
        if setting.kind == "boolean":
            options |= {"action": BooleanOptionalAction}
        elif setting.kind == "array":
            options |= {"action": "extend", "nargs": "*", "metavar": setting.metavar}
        else:
            options |= {"type": setting.read, "metavar": setting.metavar}
        sections[setting.group].add_argument(*setting.flags, **options)
        if setting.old_flag:
            parser.add_argument(setting.old_flag, **options | {"help": SUPPRESS})
    return parser


def parse_arguments(words: Sequence[str]) -> TrainArguments:
    """The arguments in the words of a command line.

    Exits with 2 and the usage when a flag is wrong; raises ArgumentsError when a file is.
    """
    parser = build_parser()
    options = vars(parser.parse_args(words))
    flags = {
        setting.name: options[setting.name] for setting in settings() if setting.name in options
    }
    job = _read_json(options["job"]) if options["job"] else {}
    file_values, source = job.pop("config", {}), options["job"]
    if options["config"]:
        file_values, source = _read_json(options["config"]), options["config"]
    places = job | {name: options[name] for name in PLACES if options[name] is not None}
    missing = [f"--{name}" for name in REQUIRED if name not in places]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    try:
        where = TrainJob.model_validate(places)
        TrainConfig.model_validate(file_values)
    except ValidationError as error:
        raise ArgumentsError(" ".join(_error_sentences(error, source))) from None
    named = rename_old(file_values) | flags
    try:
        TrainConfig.model_validate(named)
    except ValidationError as error:
        parser.error(" ".join(_error_sentences(error, None)))
    folders = data_folders(where.data)
    return TrainArguments(
        model=resolve_model(where.model),
        data=folders,
        out=where.out,
        cache=where.cache,
        regularization=options["regularization"],
        continue_from=options["continue_from"],
        preset=Preset(options["preset"]) if options["preset"] else None,
        options=named,
        name=options["name"] or folders[0].path.resolve().name or "adapter",
        trigger_word=options["trigger_word"],
        dtype=options["dtype"],
        device=options["device"],
        threads=options["threads"],
    )


def _add_places(parser: ArgumentParser) -> None:
    parser.add_argument(
        "job", nargs="?", type=Path, metavar="JOB.json", help="a JSON file with model, "
        "data, out, cache and config instead of flags; flags win over it"
    )  # fmt: skip
    places = parser.add_argument_group("places")
    places.add_argument(
        "--base-model", "--model", dest="model", type=Path, metavar="FOLDER|FILE",
        help="the base model: a diffusers folder, a .safetensors file, the word starter for the "
        "embedded one, or owner/name of a Hugging Face model that is on this machine",
    )  # fmt: skip
    places.add_argument(
        "--download", action="store_true",
        help="download --base-model from the Hub when it is not on this machine",
    )  # fmt: skip
    places.add_argument(
        "--data", type=Path, action="append", metavar="FOLDER[:REPEATS]",
        help="images, with a metadata.jsonl (file_name, text) or a .txt next to each; can be given "
        "several times, and FOLDER:3 uses its images 3 times in an epoch",
    )  # fmt: skip
    places.add_argument(
        "--regularization", type=Path, metavar="FOLDER",
        help="regularization images, captioned in the same way",
    )  # fmt: skip
    places.add_argument(
        "--regularisation", type=Path, dest="regularization", default=SUPPRESS, help=SUPPRESS
    )
    places.add_argument("--out", type=Path, metavar="FOLDER", help="the output folder")
    places.add_argument(
        "--continue-from", type=Path, metavar="FOLDER",
        help="a checkpoint (step-…), or the --out of another training for its newest: continue "
        "from it with these settings; --steps counts from the start of that training",
    )  # fmt: skip
    places.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="cache of encoded images for other runs"
    )


def _add_choices(parser: ArgumentParser) -> None:
    choices = parser.add_argument_group("this run")
    choices.add_argument(
        "--config", type=Path, metavar="FILE",
        help="a JSON file with any of the settings below, with underscores; flags win over it",
    )  # fmt: skip
    choices.add_argument(
        "--preset", choices=list(Preset),
        help="start from a preset for this base and number of images; --config and flags win over "
        "it (default: the defaults of the settings)",
    )  # fmt: skip
    choices.add_argument("--name", help="title of the adapter (default: the name of --data)")
    choices.add_argument(
        "--trigger-word", metavar="WORD",
        help="the word in the captions that triggers the style; stored in the file",
    )  # fmt: skip
    choices.add_argument(
        "--dtype", choices=values(WeightDtype), default=WeightDtype.FP16.value,
        help="number type of the file (default: fp16)",
    )  # fmt: skip
    choices.add_argument(
        "--device", type=parse_device, default="auto", metavar="DEVICE",
        help="auto, cpu, cuda, cuda:1, mps (default: auto)",
    )  # fmt: skip
    choices.add_argument(
        "--threads", type=parse_threads, default=0, metavar="N",
        help="maximum CPU threads; 0: torch's default (default: 0)",
    )  # fmt: skip


def parse_device(text: str) -> str:
    """The device of a flag. Raises ArgumentTypeError."""
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise ArgumentTypeError(f"must be auto, cpu, cuda, cuda:1 or mps, not {text!r}")
    return text


def parse_threads(text: str) -> int:
    """The number of threads of a flag. Raises ArgumentTypeError."""
    if not text.isdecimal():
        raise ArgumentTypeError(f"must be a whole number from 0, not {text!r}")
    return int(text)


def resolve_model(model: Path) -> Path:
    """The path of a base; the embedded one by its name, unless a file or folder has that."""
    return starter.PATH if str(model) == STARTER and not model.exists() else model


def data_folders(data: Path | list[Path]) -> tuple[DataFolder, ...]:
    """The folders of `--data` or of a job. Raises ArgumentsError."""
    words = data if isinstance(data, list) else [data]
    if not words:
        raise ArgumentsError("data is an empty list. Name at least one folder of images.")
    if len(words) > MAX_FOLDERS:
        raise ArgumentsError(f"At most {MAX_FOLDERS} folders can be trained on together.")
    folders = tuple(_data_folder(word) for word in words)
    seen: set[Path] = set()
    for folder in folders:
        if folder.path.resolve() in seen:
            raise ArgumentsError(
                f"{folder.path} is named twice. Name it once, with a number of repeats such as "
                f"{folder.path}:2."
            )
        seen.add(folder.path.resolve())
    return folders


def _data_folder(word: Path) -> DataFolder:
    """A folder with its repeats; a folder that has a colon in its name is taken as it is."""
    name, colon, repeats = str(word).rpartition(":")
    if not (colon and name and repeats.isdecimal()) or _exists(word):
        return DataFolder(word)
    if len(repeats) > len(str(MAX_REPEATS)) or not 1 <= int(repeats) <= MAX_REPEATS:
        shown = str(word)[:MAX_SHOWN]
        raise ArgumentsError(f"--data {shown}: the repeats must be from 1 to {MAX_REPEATS:,}.")
    return DataFolder(Path(name), int(repeats))


def _exists(path: Path) -> bool:
    """False also for a name that is too long for any file."""
    try:
        return path.exists()
    except OSError:
        return False


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ArgumentsError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ArgumentsError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("config", {}), dict):
        raise ArgumentsError(f"{path} must contain a JSON object of names and values.")
    return content


def _error_sentences(error: ValidationError, source: Path | None) -> list[str]:
    """A sentence for each refused field, with its flag and bounds."""
    known = {setting.name: setting for setting in settings()}
    where = f"{source}: " if source else ""
    sentences = {}
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden":
            close = get_close_matches(name, [*known, *PLACES], n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            sentences[name] = f"{where}Unknown setting {name!r}.{hint}"
        elif name in known and problem["type"] == "value_error":  # it conflicts with another field
            reason = problem["ctx"]["error"]
            sentences[name] = f"{where}{name} ({known[name].flag}): {reason}"
        elif name in known:
            value = problem["input"]
            sentences[name] = f"{where}{name} ({known[name].flag}) {known[name].refusal(value)}"
        else:
            sentences[name] = f"{where}{name or 'the settings'}: {problem['msg']}."
    return list(sentences.values())
