"""Pydantic models whose fields are described by the docstrings below them."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class DocumentedModel(BaseModel):
    """A model whose fields have the docstrings below them as descriptions, each as one line."""

    model_config = ConfigDict(use_attribute_docstrings=True, defer_build=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Joins the lines of descriptions, then builds the validator."""
        for field in cls.model_fields.values():
            if field.description:
                field.description = " ".join(field.description.split())
        cls.model_rebuild()
