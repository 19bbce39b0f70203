from __future__ import annotations

from pydantic import Field, TypeAdapter

from app.registry.api_records import api_record, as_answer


@api_record
class Record:
    """A record."""

    is_kept: bool = Field(description="True if it is kept.")
    note: str = Field(default="", description="A note.")
    hidden: int = Field(default=0, exclude=True)


def test_an_answer_has_every_field_but_the_hidden_ones_as_the_api_names_them() -> None:
    assert as_answer(Record(True, hidden=3)) == {"kept": True, "note": ""}
    schema = TypeAdapter(Record).json_schema(mode="serialization")
    assert schema["required"] == ["kept", "note"]
    assert schema["properties"].keys() == {"kept", "note"}
    assert "default" not in schema["properties"]["note"]
