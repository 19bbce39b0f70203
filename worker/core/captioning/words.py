"""Closed sets of captions, shared with the registry; loads nothing."""

from __future__ import annotations

from enum import StrEnum


class ProviderKind(StrEnum):
    """The kind of a caption provider."""

    BUILTIN = "builtin"
    FILENAME = "filename"
    OLLAMA = "ollama"
    OPENAI = "openai"
    LOCAL = "local"


class CaptionMode(StrEnum):
    """The treatment of a caption that exists when a new one comes."""

    FILL = "fill"
    APPEND = "append"
    REPLACE = "replace"
