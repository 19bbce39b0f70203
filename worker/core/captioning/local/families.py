"""The kinds of models that caption images on this machine; loads nothing."""

from __future__ import annotations

from enum import StrEnum


class CaptionFamily(StrEnum):
    """A kind of model that captions images."""

    BLIP = "blip"
    FLORENCE2 = "florence2"
    WD_TAGGER = "wd_tagger"


LABELS = {
    CaptionFamily.BLIP: "BLIP",
    CaptionFamily.FLORENCE2: "Florence-2",
    CaptionFamily.WD_TAGGER: "WD tagger",
}


def family_label(family: str | None) -> str:
    """The common name of a family; empty for one that is unknown."""
    return LABELS[CaptionFamily(family)] if family in LABELS else ""
