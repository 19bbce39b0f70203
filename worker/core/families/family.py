"""The families of base models: their names, sizes, components and how other programs call them.

Without torch, so that pages and forms ask here what a family has. Families know no base, training,
generation or file.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from worker.core.families.facts import klein, stable_diffusion, zimage
from worker.core.families.facts.family_facts import FamilyFacts, UsualDrawing
from worker.core.families.variants import Variant


class Component(StrEnum):
    """The part of a base model that a module belongs to.

    The denoiser keeps the stored value "unet", with which files, rows and caches were written.
    """

    DENOISER = "unet"
    TEXT_ENCODER = "text_encoder"
    TEXT_ENCODER_2 = "text_encoder_2"


class BaseFamily(StrEnum):
    """The architecture of a base model, recognized by its shapes."""

    SD1 = "sd1"
    SD2 = "sd2"
    SDXL = "sdxl"
    ZIMAGE = "zimage"
    KLEIN = "klein"

    @property
    def facts(self) -> FamilyFacts:
        """Labels, sizes and the names that other programs use."""
        return _FACTS[self]

    @property
    def label(self) -> str:
        """The family in few words: SD 1.x."""
        return _FACTS[self].short_label


_FACTS = {
    BaseFamily.SD1: stable_diffusion.SD1,
    BaseFamily.SD2: stable_diffusion.SD2,
    BaseFamily.SDXL: stable_diffusion.SDXL,
    BaseFamily.ZIMAGE: zimage.ZIMAGE,
    BaseFamily.KLEIN: klein.KLEIN,
}
FALLBACK_FAMILY = BaseFamily.SD1  # of a row from before families were stored


def find_family(name: str | None) -> BaseFamily | None:
    """The family of this stored name; None for one that is not known here."""
    return BaseFamily(name) if name in set(BaseFamily) else None


def family_label(name: str | None) -> str:
    """The label of a stored family name; "unknown" for one that is not known here."""
    family = find_family(name)
    return family.label if family else "unknown"


def usual_drawing(family: BaseFamily | None, variant: Variant | None = None) -> UsualDrawing | None:
    """How images are drawn with a base model of this family, if that is not as with any other."""
    return family.facts.drawing.get(variant or Variant.BASE) if family else None


def labels(families: Iterable[BaseFamily], word: str) -> str:
    """The labels in one phrase, such as "SD 1.x, SD 2.x or SDXL"; `word`: and, or."""
    *first, last = [family.label for family in families]
    return f"{', '.join(first)} {word} {last}" if first else last
