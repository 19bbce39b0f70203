"""Records that the REST API answers as they are, with descriptions of their fields."""

from __future__ import annotations

from dataclasses import field
from typing import Any, TypeVar, dataclass_transform

from pydantic import AliasGenerator, ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

RecordT = TypeVar("RecordT")


def name_of(name: str) -> str:
    """The name of a field in the API: `is_kept` of a row is `kept`, as all booleans are."""
    return name.removeprefix("is_")


def _describe(schema: dict[str, Any]) -> None:
    """Join the lines of descriptions; delete the defaults of an answer, which has all fields."""
    for value in schema["properties"].values():
        value.pop("default", None)
        if "description" in value:
            value["description"] = " ".join(value["description"].split())


ANSWER = ConfigDict(
    from_attributes=True, alias_generator=AliasGenerator(serialization_alias=name_of)
)
RECORD = ANSWER | ConfigDict(
    json_schema_serialization_defaults_required=True,
    json_schema_extra=_describe,
    use_attribute_docstrings=True,
)


@dataclass_transform(frozen_default=True, field_specifiers=(Field, field))
def api_record(record: type[RecordT]) -> type[RecordT]:
    """Make a class a frozen dataclass that the API can answer, but for fields with `exclude`.

    Docstrings below fields describe them.
    """
    made: type[RecordT] = dataclass(config=RECORD, frozen=True)(record)  # type: ignore[assignment]
    return made


def as_answer(record: object) -> Any:
    """What the API answers with this record, as JSON."""
    return TypeAdapter(type(record)).dump_python(record, mode="json", by_alias=True)
