"""The settings of a training as flags: names, help, and the reading of values.

Imports neither torch nor PIL, so that `--help` is fast.
"""

from argparse import ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from worker.core.old_names import OLD_NAMES
from worker.core.training.config import Group, TrainConfig

ALIASES = {
    "batch_size": "--batch",
    "learning_rate": "--lr",
    "train_text_encoder": "--text-encoder",
}
NONE = "none"
METAVARS = {"integer": "N", "number": "X", "string": "TEXT", "array": "TEXT"}
TYPE_NAMES = {
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "string": "a text",
    "array": "texts,",
}
LIMITS = {
    "minimum": "from {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
    "maxItems": "at most {}",
    "maxLength": "of at most {} characters",
}
MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of TrainConfig as a flag; `schema` is its JSON schema without null."""

    name: str
    schema: Mapping[str, Any]
    optional: bool

    @property
    def flag(self) -> str:
        """The flag with the field's name."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def flags(self) -> list[str]:
        """All flags of the field; a list also has a singular flag for one item."""
        alias = self.flag.removesuffix("s") if self.kind == "array" else ALIASES.get(self.name)
        return [self.flag, alias] if alias else [self.flag]

    @property
    def old_flag(self) -> str | None:
        """The flag with the field's old name, which the help does not show."""
        old = next((old for old, new in OLD_NAMES.items() if new == self.name), None)
        return f"--{old.replace('_', '-')}" if old else None

    @property
    def kind(self) -> str:
        """The JSON schema type."""
        return str(self.schema["type"])

    @property
    def group(self) -> Group:
        """The section in the help."""
        extra = TrainConfig.model_fields[self.name].json_schema_extra
        return Group(str(extra["group"]) if isinstance(extra, dict) else "")

    @property
    def hint(self) -> str:
        """The field's description; where the form says “Empty”, the flag takes `none`."""
        text = TrainConfig.model_fields[self.name].description or ""
        return text.replace("Empty:", f"{NONE.capitalize()}:")

    @property
    def help(self) -> str:
        """The help text: title, description, bounds and default."""
        field = TrainConfig.model_fields[self.name]
        default = _format_default(field.get_default(call_default_factory=True))
        facts = [f"default: {default}"]
        if self.kind != "boolean" and not self.choices:  # choices are shown next to the flag
            facts.insert(0, self.requirement)
        return f"{field.title}. {self.hint} ({'; '.join(facts)})"

    @property
    def choices(self) -> list[str]:
        """All possible values; empty when it is not a choice."""
        words = list(self.schema.get("enum", []))
        return [*words, NONE] if words and self.optional else words

    @property
    def metavar(self) -> str:
        """The placeholder of the value in the help."""
        return f"{{{','.join(self.choices)}}}" if self.choices else METAVARS[self.kind]

    @property
    def requirement(self) -> str:
        """The requirement for values, such as `a whole number from 1 to 256, or none`."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        words = f"{TYPE_NAMES[self.kind]}{self._limits}"
        return f"{words}, or {NONE}" if self.optional else words

    @property
    def _limits(self) -> str:
        """The bounds in the schema, and of the items of a list, each with a leading space."""
        found = {**self.schema.get("items", {}), **self.schema}
        bounds = {key: _format_number(found[key]) for key in LIMITS if key in found}
        words = [f" {LIMITS[key].format(bound)}" for key, bound in bounds.items()]
        if {"minimum", "maximum"} <= bounds.keys():
            words[:2] = [f"{words[0]} to {bounds['maximum']}"]
        return ",".join(words)

    def read(self, text: str) -> object:
        """The parsed value; ArgumentTypeError when the field refuses it."""
        if self.optional and text.lower() == NONE:
            return None
        field = TrainConfig.model_fields[self.name]
        form: Any = Annotated[field.annotation, field]
        try:
            return TypeAdapter(form).validate_python(text)
        except ValidationError:
            raise ArgumentTypeError(self.refusal(text)) from None

    def refusal(self, value: object) -> str:
        """The reason why a value is refused."""
        rule = f" {self.hint}" if "pattern" in self.schema else ""
        return f"must be {self.requirement}, not {_shorten_text(value)}.{rule}"


@cache
def settings() -> tuple[Setting, ...]:
    """Every field of TrainConfig, in order."""
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


def _format_number(value: float) -> str:
    return f"{value:,g}" if value != int(value) else f"{int(value):,}"


def _format_default(value: object) -> str:
    """A default as it would be written on the command line."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return NONE
    return str(value or "empty") if isinstance(value, str | list) else str(value)


def _shorten_text(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
