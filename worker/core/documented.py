"""Pydantic models whose fields are described by the docstrings below them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler


class DocumentedModel(BaseModel):
    """A model whose fields can have docstrings below them as descriptions, each as one line."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type, handler: GetCoreSchemaHandler) -> Any:
        """Joins the lines of descriptions before the schema is made."""
        for field in cls.__pydantic_fields__.values():
            if field.description:
                field.description = " ".join(field.description.split())
        return handler(source)
