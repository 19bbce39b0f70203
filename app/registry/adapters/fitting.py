"""Which adapter fits which base, by what the registry knows; no weights are read.

Bases of one family can still be of two sizes, as `starter` and Stable Diffusion 1.5 are: their
UNets have other layers, and so other numbers of parameters. What is not known counts as fitting,
and is found out when the weights are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from app.registry.adapters.models import Adapter, AdapterVersion
from app.registry.base_models.models import BaseModel, BaseModelStatus
from worker.core.bases.family import find_family

TOLERANCE = 0.02  # an inpainting base has a few more in its first layer
MOST_NAMED = 3

Made = tuple[Adapter, AdapterVersion]


@dataclass(frozen=True)
class Kind:
    """What a base is, or a version was made for; None is not known, `name` is for people."""

    name: str
    family: str | None
    unet: int | None

    def fits(self, base: Kind) -> bool:
        """Whether what was made for this can be used with that."""
        if self.family and base.family and self.family != base.family:
            return False
        if not (self.unet and base.unet):
            return True
        return abs(self.unet - base.unet) <= TOLERANCE * base.unet


def kind_of_base(base: BaseModel) -> Kind:
    """What a base model is."""
    return Kind(f"“{base.name}”", base.family, base.parameters.get("unet"))


def kinds(session: Session, made: Sequence[Made], *, known: Iterable[BaseModel] = ()) -> list[Kind]:
    """What each of these versions was made for; one query, or none when all bases are `known`."""
    bases = {base.key: base for base in known}
    wanted = {version.base_model_id for _, version in made if version.base_model_id}
    if missing := wanted - bases.keys():
        found = session.exec(select(BaseModel).where(col(BaseModel.id).in_(missing)))
        bases |= {base.key: base for base in found}
    return [_kind(adapter, bases.get(version.base_model_id or 0)) for adapter, version in made]


def _kind(adapter: Adapter, base: BaseModel | None) -> Kind:
    family = adapter.base_family
    if base is None:
        known = find_family(family)
        label = known.label if known else "another base"
        return Kind(label, family, _published_parameters(family))
    return Kind(f"“{base.name}”", family, base.parameters.get("unet"))


def _published_parameters(family: str | None) -> int | None:
    """The parameters of the family's published UNet; None for a family not known here."""
    known = find_family(family)
    return known.facts.unet_parameters if known else None


def misfit(adapter: Adapter, kind: Kind, base: BaseModel, bases: Iterable[BaseModel]) -> str:
    """The sentence on an adapter that does not fit a base, with those of `bases` that it fits.

    Empty when it fits.
    """
    if kind.fits(kind_of_base(base)):
        return ""
    told = f"“{adapter.name}” was made for {kind.name} and does not fit “{base.name}”."
    names = [f"“{other.name}”" for other in fitting(kind, bases)]
    if not names:
        return f"{told} No base model here fits it; add one among the base models."
    more = len(names) - MOST_NAMED
    if more > 0:
        names = [*names[:MOST_NAMED], f"{more} more"]
    return f"{told} It fits {' and '.join(filter(None, (', '.join(names[:-1]), names[-1])))}."


def fitting(kind: Kind, bases: Iterable[BaseModel]) -> list[BaseModel]:
    """Those of these bases that can be used with what was made for this."""
    ready = (base for base in bases if base.status == BaseModelStatus.READY)
    return [base for base in ready if kind.fits(kind_of_base(base))]


def stranger(made: Sequence[Made], made_for: Sequence[Kind]) -> str:
    """The sentence on the first version made for another kind than the first; empty without one."""
    for (adapter, _), kind in zip(made[1:], made_for[1:], strict=True):
        if not kind.fits(made_for[0]):
            first = f"“{made[0][0].name}” was made for {made_for[0].name}"
            return (
                f"{first} and “{adapter.name}” for {kind.name}; only adapters for the same kind of "
                "base model can be merged."
            )
    return ""


def is_made_for(session: Session, kind: Kind) -> ColumnElement[bool]:
    """True for rows of AdapterVersion, of adapters of this family, that fit beside this kind."""
    bases = session.exec(select(BaseModel)).all()
    keys = [base.key for base in bases if kind_of_base(base).fits(kind)]
    own = col(AdapterVersion.base_model_id)
    published = Kind("", kind.family, _published_parameters(kind.family))
    if published.fits(kind):
        return sa.or_(own.is_(None), own.in_(keys))
    return own.in_(keys)
