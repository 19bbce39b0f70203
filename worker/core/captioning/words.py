"""Closed sets of captions, shared with the registry; loads nothing."""

from __future__ import annotations

from enum import StrEnum


class ProviderKind(StrEnum):
    """Who writes captions."""

    BUILTIN = "builtin"
    OLLAMA = "ollama"
    OPENAI = "openai"
    LOCAL = "local"


class CaptionMode(StrEnum):
    """What a new caption does with one that is there."""

    FILL = "fill"
    APPEND = "append"
    REPLACE = "replace"
