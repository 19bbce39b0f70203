"""Closed sets of captions, shared with the registry; loads nothing."""

from __future__ import annotations

from enum import StrEnum

from worker.core.words import Labeled


class ProviderKind(Labeled):
    """The kind of a caption provider."""

    BUILTIN = "builtin", "Built in"
    FILENAME = "filename", "File names"
    OLLAMA = "ollama", "Ollama server"
    OPENAI = "openai", "OpenAI-compatible server"
    LOCAL = "local"


class CaptionMode(StrEnum):
    """The treatment of a caption that exists when a new one comes."""

    FILL = "fill"
    APPEND = "append"
    REPLACE = "replace"


class CaptionFamily(Labeled):
    """A kind of model that captions images."""

    BLIP = "blip", "BLIP"
    FLORENCE2 = "florence2", "Florence-2"
    WD_TAGGER = "wd_tagger", "WD tagger"


def family_label(family: str | None) -> str:
    """The common name of a family; empty for one that is unknown."""
    return CaptionFamily(family).label if family in set(CaptionFamily) else ""
