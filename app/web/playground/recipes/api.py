"""REST: recipes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from fastapi import Query
from pydantic import BaseModel, Field, field_validator

from app.registry.db import Session
from app.registry.renders import service as renders
from app.registry.renders.recipes import service
from app.registry.tables.renders import Recipe
from app.registry.validation import Name
from app.web.access.needs import Action, Router
from app.web.answers import OwnedAnswer
from app.web.playground.api import RenderCreated, RenderIn, images_out
from app.web.problems import problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.state import Reading, RecipeId, State, Writing
from worker.core.documented import DocumentedModel

router = Router(tags=["recipes"])

NOT_IN_RECIPES = ("twin", "weights", "draft_slot")
NO_RECIPE = problems({404: "There is no such recipe."})


class RecipeIn(DocumentedModel):
    """A recipe to save."""

    model_config = example(
        name="Evening chalk",
        request={
            "prompt": "a castle, chalkboard",
            "seed": 7,
            "adapters": [{"id": 1, "weight": 0.75}],
        },
    )
    name: Name = Field(description="Its name.")
    request: RenderIn
    """The request that it keeps, as for `POST /renders`; without `twin`, `weights` and
    `draft_slot`."""

    @field_validator("request")
    @classmethod
    def _only_what_is_kept(cls, request: RenderIn) -> RenderIn:
        if any(getattr(request, name) for name in NOT_IN_RECIPES):
            raise ValueError(f"Leave out {', '.join(NOT_IN_RECIPES)}: a recipe keeps none of them.")
        return request


class RecipePatch(BaseModel):
    """A new name."""

    model_config = example(name="Late evening chalk")
    name: Name = Field(description="Its name.")


class RecipeOut(OwnedAnswer):
    """A recipe as it can be used now."""

    address: ClassVar[str] = "/api/v1/recipes/{id}"
    id: int = Field(description="Id of the recipe.")
    slug: str = Field(description="`/recipes/{slug}` opens the playground with it.")
    name: str = Field(description="Its name.")
    request: RenderIn
    """The request that it keeps, as it can be sent now to `POST /renders`: without what is not here
    any more. A version that an alias names has the alias."""
    missing: list[str] = Field(description="What is not here any more, as sentences.")
    created_at: datetime = Field(description="When it was saved.")
    updated_at: datetime = Field(description="When it was saved or renamed.")
    deleted_at: datetime | None = Field(description="When it was deleted; it can be restored.")


def _recipe_out(session: Session, recipe: Recipe) -> RecipeOut:
    opened = service.open_recipe(session, recipe)
    request = RenderIn.of(service.request_of(opened))
    return RecipeOut.of(recipe, request=request, missing=list(opened.missing))


@router.post(
    "/recipes",
    Action.CREATE,
    status_code=201,
    responses=problems({404: "There is no such base model, adapter or version."}),
)
def create_recipe(body: RecipeIn, session: Writing) -> RecipeOut:
    """Save a stack of adapters with its prompt and settings under a name.

    A version that an alias names is that of the alias later, too; the others are those that the
    references name now. Nothing is generated.
    """
    return _recipe_out(session, service.save_recipe(session, body.name, body.request))


@router.get("/recipes", Action.LOOK)
def list_recipes(
    session: Reading,
    part: Part,
    deleted: Annotated[bool, Query(description="Those that were deleted, not the others.")] = False,
) -> list[RecipeOut]:
    """List recipes, newest first."""
    page = service.list_recipes(session, deleted=deleted, size=part.size, before=part.after)
    rows = part.cut(page.items, lambda recipe: recipe.key, total=page.total)
    return [_recipe_out(session, recipe) for recipe in rows]


@router.get("/recipes/{recipe_id}", Action.LOOK, responses=NO_RECIPE)
def get_recipe(recipe_id: RecipeId, session: Reading) -> RecipeOut:
    """Get a recipe with its adapters as they are now."""
    return _recipe_out(session, service.get_recipe(session, recipe_id))


@router.patch("/recipes/{recipe_id}", Action.EDIT, responses=NO_RECIPE)
def change_recipe(recipe_id: RecipeId, body: RecipePatch, session: Writing) -> RecipeOut:
    """Rename a recipe; its slug stays."""
    return _recipe_out(session, service.rename_recipe(session, recipe_id, body.name))


@router.post(
    "/recipes/{recipe_id}/renders",
    Action.DRAW,
    status_code=202,
    responses=NO_RECIPE | problems({409: "Something of it is not here any more."}),
)
def render_recipe(recipe_id: RecipeId, state: State, session: Writing) -> RenderCreated:
    """Generate the images of a recipe, with the adapters as they are now.

    Without a seed, each time others. To change something, send its `request` to `POST /renders`.
    """
    opened = service.open_recipe(session, service.get_recipe(session, recipe_id))
    service.require_complete(opened)
    render = renders.create_render(session, service.request_of(opened), state.store)
    return RenderCreated.of(render, images=images_out(session, render))
