"""Recipes: save a request under a name, list, open, rename, delete and restore."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlmodel import Session, col, select

from app.registry.adapters import service as adapters
from app.registry.adapters.versions.aliases import NUMBER
from app.registry.base_models import service as base_models
from app.registry.db import in_chunks, utcnow
from app.registry.errors import Conflict, NotFound
from app.registry.job_kinds.states import JobStatus
from app.registry.job_kinds.weighted import WeightedAdapter
from app.registry.paging import Page, read_rows
from app.registry.renders import sources
from app.registry.renders.plan import plan_single
from app.registry.renders.requests import RenderRequest
from app.registry.renders.sources import SourceImage
from app.registry.slugs import insert_named
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.added_models import BaseModel, ModelStatus
from app.registry.tables.renders import Recipe, RecipeAdapter, Render, RenderImage
from app.registry.tables.rows import UNSYNCHRONIZED
from app.registry.validation import checked_name
from worker.core.inference.config import RenderConfig

RECIPES_A_PAGE = 24
SETTINGS = RenderConfig.model_fields.keys() - {"seed"} | {"source_sha256"}


@dataclass(frozen=True)
class OpenedRecipe:
    """A recipe with the adapters that are still here, at their versions and present names.

    `base_model`: its slug; None if it cannot be used any more. `missing`: sentences on what is not
    here.
    """

    recipe: Recipe
    stack: Sequence[RecipeAdapter]
    base_model: str | None
    missing: Sequence[str]


def save_recipe(session: Session, name: str, request: RenderRequest, *, mix: str = "") -> Recipe:
    """Save a request, without a twin. Raises InvalidInput for every bad field.

    A version that an alias names is found by it later, too; another one stays as it is now.
    """
    name = checked_name(name)
    planned = plan_single(session, request.model_copy(update={"weights": None}))
    base = base_models.get_base_model(session, planned.base_model_id)
    values = planned.model_dump(include={*SETTINGS, "cache_key", "visibility"})
    if request.source is not None:
        sources.remember(session, sources.find_source(session, request.source))
    return insert_named(
        session,
        Recipe,
        name,
        fallback="recipe",
        base_model=base.slug,
        seed=None if request.seed is None else planned.seed,
        mix=mix,
        adapters=_with_aliases(planned.adapters, request.adapters),
        **values,
    )


def _with_aliases(
    stored: Sequence[dict[str, Any]], named: Sequence[WeightedAdapter]
) -> list[dict[str, Any]]:
    """The adapters of a render, each with the alias that names its version, if one does."""
    names = [str(used.version or "").strip().lower() for used in named]  # the prompt names others
    names += [""] * (len(stored) - len(names))
    return [
        entry | ({"alias": name} if name and not NUMBER.fullmatch(name) else {})
        for entry, name in zip(stored, names, strict=True)
    ]


def list_recipes(
    session: Session,
    *,
    deleted: bool = False,
    size: int = RECIPES_A_PAGE,
    number: int = 1,
    before: int | None = None,
) -> Page[Recipe]:
    """Recipes, newest first; `before`: only those with a lower id."""
    there = _is_listed(deleted=deleted)
    return read_rows(session, Recipe, there, size=size, number=number, before=before)


def _is_listed(*, deleted: bool = False) -> ColumnElement[bool]:
    moment = col(Recipe.deleted_at)
    return moment.is_not(None) if deleted else moment.is_(None)


def find_covers(session: Session, recipes: Sequence[Recipe]) -> dict[int, str]:
    """The newest image of a render of each recipe, else the cover of its first adapter."""
    keys = {recipe.cache_key for recipe in recipes}
    made = (
        select(Render.cache_key, RenderImage.sha256)
        .join(RenderImage, col(RenderImage.render_id) == col(Render.id))
        .where(
            col(Render.cache_key).in_(keys),
            Render.status == JobStatus.SUCCEEDED,
            col(Render.deleted_at).is_(None),
            RenderImage.index == 0,
        )
        .order_by(col(Render.id))
    )
    images = dict(session.exec(made).all())
    used = {recipe.stack[0].adapter_id for recipe in recipes if recipe.adapters}
    shown = select(Adapter.id, Adapter.cover_sha256).where(
        col(Adapter.id).in_(used), col(Adapter.deleted_at).is_(None)
    )
    of_adapters = dict(session.exec(shown).all())
    covers = {}
    for recipe in recipes:
        first = of_adapters.get(recipe.stack[0].adapter_id) if recipe.adapters else None
        if cover := images.get(recipe.cache_key) or first:
            covers[recipe.key] = cover
    return covers


def get_recipe(session: Session, recipe_id: int) -> Recipe:
    """Look up a recipe, also a deleted one. Raises NotFound."""
    recipe = session.get(Recipe, recipe_id)
    if recipe is None:
        raise NotFound("There is no such recipe; it may have been deleted for good.")
    return recipe


def recipe_by_slug(session: Session, slug: str) -> Recipe:
    """Look up a recipe by its slug. Raises NotFound, also if it was deleted."""
    recipe = session.exec(select(Recipe).where(Recipe.slug == slug)).first()
    if recipe is None:
        raise NotFound("There is no such recipe; it may have been deleted for good.")
    if recipe.deleted_at is not None:
        raise NotFound(f"“{recipe.name}” was deleted. You can restore it among deleted recipes.")
    return recipe


def open_recipe(session: Session, recipe: Recipe) -> OpenedRecipe:
    """Look up what a recipe is made of, and say what of it is not here any more."""
    missing: list[str] = []
    stack: list[RecipeAdapter] = []
    for used in recipe.stack:
        try:
            adapter = adapters.get_adapter(session, used.adapter_id)
        except NotFound:
            missing.append(f"The adapter “{used.name}” was deleted, so it is left out.")
            continue
        version, alias, sentence = _find_version(session, adapter, used)
        missing += [sentence] if sentence else []
        here = {"slug": adapter.slug, "name": adapter.name, "version": version.version}
        here |= {"version_id": version.key, "alias": alias}
        stack.append(used.model_copy(update=here))
    base = session.exec(select(BaseModel).where(BaseModel.slug == recipe.base_model)).first()
    if base is None or base.status == ModelStatus.REMOVED:
        missing.append(
            f"The base model “{base.name if base else recipe.base_model}” is not here any more, so "
            "that of the adapters takes its place."
        )
        base = None
    return OpenedRecipe(recipe, stack, base.slug if base else None, missing)


def request_of(opened: OpenedRecipe) -> RenderRequest:
    """The request of a recipe with what is still here."""
    recipe = opened.recipe
    stack = [
        used.named.model_copy(update={"version": used.alias or used.version})
        for used in opened.stack
    ]
    values = {name: getattr(recipe, name) for name in SETTINGS - {"source_sha256"}}
    if recipe.source_sha256:
        values["source"] = SourceImage(sha256=recipe.source_sha256)
    return RenderRequest(**values, seed=recipe.seed, base_model=opened.base_model, adapters=stack)


def require_complete(opened: OpenedRecipe) -> None:
    """Raises Conflict if something of a recipe is not here any more."""
    if opened.missing:
        sentence = " ".join(opened.missing)
        raise Conflict(f"{sentence} The recipe's `request` has the rest: send it to POST /renders.")


def _find_version(
    session: Session, adapter: Adapter, used: RecipeAdapter
) -> tuple[AdapterVersion, str | None, str]:
    """The version of an adapter of a recipe, the alias that names it, and what is not here."""
    gone = ""
    if used.alias is not None:
        try:
            return adapters.get_version(session, adapter, used.alias), used.alias, ""
        except NotFound:
            gone = f"The alias “{used.alias}” of “{adapter.name}”"
    version = session.get(AdapterVersion, used.version_id)
    if version is None or version.adapter_id != adapter.key:
        gone = gone or f"{adapter.version_label(used.version).capitalize()} of “{adapter.name}”"
        version = adapters.get_version(session, adapter)
    label = adapter.version_label(version.version)
    return version, None, gone and f"{gone} was deleted, so {label} takes its place."


def rename_recipe(session: Session, recipe_id: int, name: str) -> Recipe:
    """Rename a recipe; its address stays. Raises NotFound or InvalidInput."""
    recipe = get_recipe(session, recipe_id)
    recipe.name, recipe.updated_at = checked_name(name), utcnow()
    return _store(session, recipe)


def delete_recipe(session: Session, recipe_id: int) -> Recipe:
    """Delete a recipe; it can be restored. Idempotent."""
    recipe = get_recipe(session, recipe_id)
    if recipe.deleted_at is None:
        recipe.deleted_at = utcnow()
    return _store(session, recipe)


def _store(session: Session, recipe: Recipe) -> Recipe:
    session.add(recipe)
    session.flush()
    return recipe


def delete_deleted_recipes(session: Session) -> int:
    """Delete all deleted recipes for good; return how many they were."""
    deleted = session.exec(select(Recipe.id).where(_is_listed(deleted=True)))
    keys = [key for key in deleted if key is not None]
    for chunk in in_chunks(keys):
        gone = sa.delete(Recipe).where(col(Recipe.id).in_(chunk))
        session.exec(gone, execution_options=UNSYNCHRONIZED)
    session.expire_all()
    return len(keys)
