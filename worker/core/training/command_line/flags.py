"""What `brushwork train` can be told: a flag for every field of TrainConfig, made from the field.

Imports neither torch nor a picture, so that `--help` comes in a blink.
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
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from worker.core import starter
from worker.core.training.config import Group, TrainConfig, TrainJob
from worker.core.training.presets import Preset, for_optimizer, preset_config

ALIASES = {
    "batch_size": "--batch",
    "learning_rate": "--lr",
    "train_text_encoder": "--text-encoder",
}
PLACES = ("model", "data", "out", "cache")
REQUIRED = ("model", "data", "out")
DTYPES = ("fp16", "bf16", "fp32")
STARTER = "starter"
NONE = "none"
METAVARS = {"integer": "N", "number": "X", "string": "TEXT", "array": "TEXT"}
NOUNS = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "array": "texts,",
}
LIMITS = (
    ("minimum", "from"),
    ("exclusiveMinimum", "above"),
    ("maximum", "at most"),
    ("exclusiveMaximum", "below"),
)
MAX_SHOWN = 60
USAGE = """brushwork train --model FOLDER|FILE --data FOLDER --out FOLDER [--SETTING VALUE ...]
       brushwork train JOB.json [--SETTING VALUE ...]"""
DESCRIPTION = """\
Train an adapter on a folder of pictures, with no web, database or broker.

Writes adapter.safetensors (in kohya naming, read by every program that reads LoRAs) into the
folder --out, with samples/ and checkpoints/ beside it. Ctrl-C saves a checkpoint; the same command
again goes on from there."""


class OrderError(Exception):
    """An order that cannot be carried out; the message is a sentence for people."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of TrainConfig as a flag; `schema` is its JSON schema without null."""

    name: str
    schema: Mapping[str, Any]
    optional: bool

    @property
    def flag(self) -> str:
        """The flag named like the field."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def flags(self) -> list[str]:
        """All of its flags; a list may also be given one by one, in the singular."""
        alias = self.flag.removesuffix("s") if self.kind == "array" else ALIASES.get(self.name)
        return [self.flag, alias] if alias else [self.flag]

    @property
    def kind(self) -> str:
        """Its type in the words of JSON schema."""
        return str(self.schema["type"])

    @property
    def group(self) -> Group:
        """The section it is shown in."""
        extra = TrainConfig.model_fields[self.name].json_schema_extra
        return Group(str(extra["group"]) if isinstance(extra, dict) else "")

    @property
    def hint(self) -> str:
        """What it does; the field's own words speak of a form, where none is an empty field."""
        text = TrainConfig.model_fields[self.name].description or ""
        return text.replace("Empty:", f"{NONE.capitalize()}:")

    @property
    def help(self) -> str:
        """Title, hint, bounds and default."""
        field = TrainConfig.model_fields[self.name]
        default = _shown(field.get_default(call_default_factory=True))
        facts = [f"default: {default}"]
        if self.kind != "boolean" and not self.choices:  # whose values stand beside the flag
            facts.insert(0, self.requirement)
        return f"{field.title}. {self.hint} ({'; '.join(facts)})"

    @property
    def choices(self) -> list[str]:
        """All that it can be; empty when it is no choice."""
        words = list(self.schema.get("enum", []))
        return [*words, NONE] if words and self.optional else words

    @property
    def metavar(self) -> str:
        """What stands for the value in the help."""
        return f"{{{','.join(self.choices)}}}" if self.choices else METAVARS[self.kind]

    @property
    def requirement(self) -> str:
        """What its values have to be, such as `a whole number from 1 to 256, or none`."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = f"{NOUNS[self.kind]}{self._limits}"
        return f"{words}, or {NONE}" if self.optional else words

    @property
    def _limits(self) -> str:
        """The bounds that its schema names, each with a space before it."""
        schema = self.schema
        words = []
        if "minimum" in schema and "maximum" in schema:
            words.append(f" from {_number(schema['minimum'])} to {_number(schema['maximum'])}")
        else:
            words += [f" {word} {_number(schema[key])}" for key, word in LIMITS if key in schema]
        if "multipleOf" in schema:
            words.append(f" a multiple of {schema['multipleOf']}")
        if "maxItems" in schema:
            words.append(f" at most {schema['maxItems']}")
        longest = schema.get("items", schema).get("maxLength")
        if longest:
            words.append(f" of at most {_number(longest)} characters")
        return ",".join(words)

    def read(self, text: str) -> object:
        """The value that a person wrote; ArgumentTypeError when the field refuses it."""
        if self.optional and text.lower() == NONE:
            return None
        field = TrainConfig.model_fields[self.name]
        form: Any = Annotated[field.annotation, field]
        try:
            return TypeAdapter(form).validate_python(text)
        except ValidationError:
            raise ArgumentTypeError(self.refusal(text)) from None

    def refusal(self, value: object) -> str:
        """Why a value cannot be taken."""
        rule = f" {self.hint}" if "pattern" in self.schema else ""
        return f"has to be {self.requirement}, not {_shortened(value)}.{rule}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """All that a person told: where things are, what to train, and what the file says of itself.

    `file_values` and `flag_values` are fields of TrainConfig; what is in neither comes from the
    preset, or without one from TrainConfig's own defaults, as the optimizer wants them.
    """

    model: Path
    data: Path
    out: Path
    cache: Path | None
    regularisation: Path | None
    continue_from: Path | None
    preset: Preset | None
    file_values: Mapping[str, Any]
    flag_values: Mapping[str, Any]
    name: str
    trigger_word: str | None
    dtype: str
    device: str
    threads: int

    def config(self, *, resolution: int, images: int) -> TrainConfig:
        """The whole config, for a base of this native resolution (pixels) and so many pictures.

        Raises OrderError when the preset does not go together with the rest.
        """
        usual = TrainConfig()
        if self.preset:
            usual = preset_config(
                self.preset, resolution=resolution, images=images, trigger_word=self.trigger_word
            )
        told = {**self.file_values, **self.flag_values}
        values = for_optimizer(usual, told.get("optimizer")).model_dump()
        try:
            return TrainConfig.model_validate(values | told)
        except ValidationError as error:
            raise OrderError(" ".join(_sentences(error, None))) from None


@cache
def settings() -> tuple[Setting, ...]:
    """Every field of TrainConfig, in its order."""
    schema = TrainConfig.model_json_schema()
    found = []
    for name, field in schema["properties"].items():
        kinds = [
            schema["$defs"][kind["$ref"].rpartition("/")[2]] if "$ref" in kind else kind
            for kind in field.get("anyOf", [field])
        ]
        real = [kind for kind in kinds if kind.get("type") != "null"]
        found.append(Setting(name, real[0], optional=len(real) < len(kinds)))
    return tuple(found)


def build_parser() -> ArgumentParser:
    """The parser of the whole command."""
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
        told: dict[str, Any] = {"dest": setting.name, "default": SUPPRESS}
        told["help"] = setting.help.replace("%", "%%")
        if setting.kind == "boolean":
            told |= {"action": BooleanOptionalAction}
        elif setting.kind == "array":
            told |= {"action": "extend", "nargs": "*", "metavar": setting.metavar}
        else:
            told |= {"type": setting.read, "metavar": setting.metavar}
        sections[setting.group].add_argument(*setting.flags, **told)
    return parser


def read_order(words: Sequence[str]) -> Order:
    """What the words of a command line ask for.

    Exits with 2 and the usage when a flag is wrong; raises OrderError when a file is.
    """
    parser = build_parser()
    told = vars(parser.parse_args(words))
    flags = {setting.name: told[setting.name] for setting in settings() if setting.name in told}
    job = _read_json(told["job"]) if told["job"] else {}
    file_values, source = job.pop("config", {}), told["job"]
    if told["config"]:
        file_values, source = _read_json(told["config"]), told["config"]
    places = job | {name: told[name] for name in PLACES if told[name] is not None}
    missing = [f"--{name}" for name in REQUIRED if name not in places]
    if missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    try:
        where = TrainJob.model_validate(places)
        TrainConfig.model_validate(file_values)
    except ValidationError as error:
        raise OrderError(" ".join(_sentences(error, source))) from None
    try:
        TrainConfig.model_validate(file_values | flags)
    except ValidationError as error:
        parser.error(" ".join(_sentences(error, None)))
    return Order(
        model=_base_path(where.model),
        data=where.data,
        out=where.out,
        cache=where.cache,
        regularisation=told["regularisation"],
        continue_from=told["continue_from"],
        preset=Preset(told["preset"]) if told["preset"] else None,
        file_values=file_values,
        flag_values=flags,
        name=told["name"] or where.data.resolve().name or "adapter",
        trigger_word=told["trigger_word"],
        dtype=told["dtype"],
        device=told["device"],
        threads=told["threads"],
    )


def _add_places(parser: ArgumentParser) -> None:
    parser.add_argument(
        "job", nargs="?", type=Path, metavar="JOB.json", help="a JSON with model, data, out, "
        "cache and config, in the place of the flags; flags win over it"
    )  # fmt: skip
    places = parser.add_argument_group("places")
    places.add_argument(
        "--model", type=Path, metavar="FOLDER|FILE",
        help="the base: a diffusers folder, a .safetensors file, the word starter for the embedded "
        "one, or owner/name of a model on the Hugging Face Hub that is on this machine",
    )  # fmt: skip
    places.add_argument(
        "--download", action="store_true",
        help="fetch --model from the Hub first when it is not on this machine",
    )  # fmt: skip
    places.add_argument(
        "--data", type=Path, metavar="FOLDER",
        help="pictures, with a metadata.jsonl (file_name, text) or a .txt beside each",
    )  # fmt: skip
    places.add_argument(
        "--regularisation", type=Path, metavar="FOLDER",
        help="pictures that show what the style is not, captioned in the same way",
    )  # fmt: skip
    places.add_argument("--out", type=Path, metavar="FOLDER", help="where everything is written")
    places.add_argument(
        "--continue-from", type=Path, metavar="FOLDER",
        help="a checkpoint (step-…), or the --out of another training for its newest: go on from "
        "there with these settings, to --steps counted from the very beginning",
    )  # fmt: skip
    places.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="encoded pictures, kept for other runs"
    )


def _add_choices(parser: ArgumentParser) -> None:
    choices = parser.add_argument_group("this run")
    choices.add_argument(
        "--config", type=Path, metavar="FILE",
        help="a JSON with any of the settings below, named with underscores; flags win over it",
    )  # fmt: skip
    choices.add_argument(
        "--preset", choices=list(Preset),
        help="start from a preset for this base and so many pictures; --config and flags win over "
        "it (default: the settings' own defaults)",
    )  # fmt: skip
    choices.add_argument("--name", help="title of the adapter (default: the name of --data)")
    choices.add_argument(
        "--trigger-word", metavar="WORD",
        help="the word in the captions that calls the style; noted in the file",
    )  # fmt: skip
    choices.add_argument(
        "--dtype", choices=DTYPES, default="fp16", help="number type of the file (default: fp16)"
    )
    choices.add_argument(
        "--device", type=_device, default="auto", metavar="DEVICE",
        help="auto, cpu, cuda, cuda:1, mps (default: auto)",
    )  # fmt: skip
    choices.add_argument(
        "--threads", type=_threads, default=0, metavar="N",
        help="the most CPU threads; 0: as many as torch takes (default: 0)",
    )  # fmt: skip


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise ArgumentTypeError(f"has to be auto, cpu, cuda, cuda:1 or mps, not {text!r}")
    return text


def _threads(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"has to be a whole number from 0, not {text!r}")
    return int(text)


def _base_path(model: Path) -> Path:
    """The embedded base by its name, unless there is something else of that name."""
    return starter.PATH if str(model) == STARTER and not model.exists() else model


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise OrderError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise OrderError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict) or not isinstance(content.get("config", {}), dict):
        raise OrderError(f"{path} has to hold an object with names and values.")
    return content


def _sentences(error: ValidationError, source: Path | None) -> list[str]:
    """One for each field that was refused, with its flag and its bounds."""
    known = {setting.name: setting for setting in settings()}
    where = f"{source}: " if source else ""
    sentences = {}
    for problem in error.errors():
        name = str(problem["loc"][0]) if problem["loc"] else ""
        if problem["type"] == "extra_forbidden":
            close = get_close_matches(name, [*known, *PLACES], n=1)
            meant = f"; {close[0]} is meant?" if close else "."
            sentences[name] = f"{where}There is no setting {name!r}{meant}"
        elif name in known and problem["type"] == "value_error":  # it does not go with another
            reason = problem["ctx"]["error"]
            sentences[name] = f"{where}{name} ({known[name].flag}): {reason}"
        elif name in known:
            value = problem["input"]
            sentences[name] = f"{where}{name} ({known[name].flag}) {known[name].refusal(value)}"
        else:
            sentences[name] = f"{where}{name or 'the settings'}: {problem['msg']}."
    return list(sentences.values())


def _number(value: float) -> str:
    return f"{value:,g}" if value != int(value) else f"{int(value):,}"


def _shown(value: object) -> str:
    """A default as one would write it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return NONE
    return str(value or "empty") if isinstance(value, str | list) else str(value)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
