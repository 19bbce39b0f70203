"""Decides which adapters fit which base models, from registry data without reading weights.

Base models of one family can have different sizes, such as `starter` and Stable Diffusion 1.5:
their UNets have different layers and numbers of parameters. Unknown values count as fitting; the
weights are checked when they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlmodel import Session, col, select

from app.registry.base_models import service as base_models
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel, ModelStatus
from app.registry.wording import join_words
from worker.core.families.family import find_family

TOLERANCE = 0.02  # an inpainting model has a few more in its first layer
MOST_NAMED = 3

AdapterAndVersion = tuple[Adapter, AdapterVersion]


@dataclass(frozen=True)
class BaseKind:
    """The kind of base model that something is or was made for; None means unknown."""

    name: str
    family: str | None
    unet: int | None

    def fits(self, base: BaseKind) -> bool:
        """True if adapters for this kind can be used with `base`."""
        if self.family and base.family and self.family != base.family:
            return False
        if not (self.unet and base.unet):
            return True
        return abs(self.unet - base.unet) <= TOLERANCE * base.unet


def kind_of_base(base: BaseModel) -> BaseKind:
    """The kind of a base model."""
    return BaseKind(f"“{base.name}”", base.family, base.parameters.get("unet"))


def kinds(
    session: Session, made: Sequence[AdapterAndVersion], *, known: Iterable[BaseModel] = ()
) -> list[BaseKind]:
    """The kind of base model of each version; one query, or none if all are `known`."""
    bases = {base.key: base for base in known}
    base_ids = {version.base_model_id for _, version in made if version.base_model_id}
    if missing := base_ids - bases.keys():
        found = session.exec(select(BaseModel).where(col(BaseModel.id).in_(missing)))
        bases |= {base.key: base for base in found}
    return [
        _kind_of_adapter(adapter, bases.get(version.base_model_id or 0))
        for adapter, version in made
    ]


def _kind_of_adapter(adapter: Adapter, base: BaseModel | None) -> BaseKind:
    family = adapter.base_family
    if base is None:
        known = find_family(family)
        label = known.label if known else "another base"
        return BaseKind(label, family, _published_parameters(family))
    return BaseKind(f"“{base.name}”", family, base.parameters.get("unet"))


def _published_parameters(family: str | None) -> int | None:
    """The parameters of the family's published denoiser; None for a family not known here."""
    known = find_family(family)
    return known.facts.denoiser_parameters if known else None


def misfit(adapter: Adapter, kind: BaseKind, base: BaseModel, bases: Iterable[BaseModel]) -> str:
    """A sentence on why an adapter does not fit a base model, naming those of `bases` that it fits.

    Empty if it fits.
    """
    if base.is_retired:
        sentence = f"“{adapter.name}” was made for {kind.name}, which is no longer shipped."
    elif kind.fits(kind_of_base(base)):
        return ""
    else:
        sentence = f"“{adapter.name}” was made for {kind.name} and does not fit “{base.name}”."
    names = [f"“{other.name}”" for other in fitting(kind, bases)]
    if not names:
        return f"{sentence} No base model here fits it. Add one on the base models page."
    more = len(names) - MOST_NAMED
    if more > 0:
        names = [*names[:MOST_NAMED], f"{more} more"]
    return f"{sentence} It fits {join_words(names)}."


def misfits(session: Session, made: Sequence[AdapterAndVersion], base: BaseModel) -> list[str]:
    """A sentence for each version that does not fit a base model, as `misfit` has it, once."""
    bases = base_models.list_base_models(session) if made else []
    found = (
        misfit(adapter, kind, base, bases)
        for (adapter, _), kind in zip(made, kinds(session, made, known=bases), strict=True)
    )
    return list(dict.fromkeys(filter(None, found)))


def fitting(kind: BaseKind, bases: Iterable[BaseModel]) -> list[BaseModel]:
    """The ready base models of `bases` that adapters for this kind can be used with."""
    ready = (base for base in bases if base.status == ModelStatus.READY)
    return [base for base in ready if kind.fits(kind_of_base(base))]


def stranger(made: Sequence[AdapterAndVersion], made_for: Sequence[BaseKind]) -> str:
    """A sentence on the first version made for another kind than the first; empty if none is."""
    for (adapter, _), kind in zip(made[1:], made_for[1:], strict=True):
        if not kind.fits(made_for[0]):
            first = f"“{made[0][0].name}” was made for {made_for[0].name}"
            return (
                f"{first} and “{adapter.name}” for {kind.name}. Choose adapters for the same kind "
                "of base model to merge them."
            )
    return ""
