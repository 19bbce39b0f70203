"""Bodies of requests: an example each, and changes, of which absent fields stay."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from pydantic import ConfigDict, Field, GetJsonSchemaHandler, model_validator

from worker.core.documented import DocumentedModel


def example(**values: Any) -> ConfigDict:
    """The configuration of a body: other fields are refused, and this is an example of it."""
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [values]})


def change(description: str) -> Any:
    """A field of a patch: it cannot be null, and is None if it is absent."""
    return Field(default_factory=lambda: None, description=description)


class Patch(DocumentedModel):
    """Changes to a row, at least one of them; `aids`: fields that change nothing by themselves."""

    aids: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set - self.aids:
            names = ", ".join(name for name in type(self).model_fields if name not in self.aids)
            raise ValueError(f"Send at least one field: {names}")
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: Any, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema, which says that an empty object is refused."""
        schema = handler(core_schema)
        handler.resolve_ref_schema(schema)["minProperties"] = 1
        return schema
