"""Pages of recipes: save the playground's form as one, list, open and rename."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Path, Request
from starlette.responses import Response

from app.registry.deletion.lists import has_deleted
from app.registry.errors import AppError, InvalidInput
from app.registry.paging import find_page
from app.registry.renders.recipes import service
from app.registry.renders.recipes.service import OpenedRecipe
from app.registry.tables.renders import Recipe
from app.web.access.needs import Action, Router
from app.web.addresses import page_prefix
from app.web.forms import SentForm
from app.web.playground.forms import form_of_recipe, read_form
from app.web.playground.pages import RecipePanel, finished_result, play_page
from app.web.state import Id, PageNumber, Reading, State, session_of
from app.web.templates import redirect_with_notice, render, render_fragment, wants_fragment

router = Router(include_in_schema=False)

RECIPES = "/recipes"
Slug = Annotated[str, Path(max_length=140)]


@dataclass(frozen=True)
class RecipeRow:
    """A recipe of the list, with what was typed to rename it."""

    opened: OpenedRecipe
    cover: str | None
    name: str
    error: str = ""

    @property
    def recipe(self) -> Recipe:
        """The recipe itself."""
        return self.opened.recipe

    @property
    def adapters(self) -> str:
        """Its adapters and their weights, as words."""
        used = (
            f"{used.name}{f'@{used.alias}' if used.alias else ''} {used.weight:.2f}"
            for used in self.opened.stack
        )
        return ", ".join(used) or "No adapters"


@router.post(RECIPES, Action.CREATE)
def save(request: Request, state: State, sent: SentForm) -> Response:
    """Save the form of the playground as a recipe; it stays as it is."""
    form, name = read_form(sent.multi_items()), str(sent.get("recipe", ""))
    try:
        with state.database.write() as session:
            wanted = form.request(session)
            saved = service.save_recipe(session, name, wanted, mix=form.mix)
    except AppError as error:
        if wants_fragment(request):
            return render_fragment("playground/_recipe_saved.html", saved=None, error=error.detail)
        with state.database.read() as session:
            panel = RecipePanel(name, error.detail)
            context = play_page(session, form, recipe=panel)
        return render(request, "playground/play.html", context, status=422)
    if wants_fragment(request):
        return render_fragment("playground/_recipe_saved.html", saved=saved, error="")
    return redirect_with_notice(f"{RECIPES}/{saved.slug}", f"“{saved.name}” was saved.")


@router.get(RECIPES, Action.LOOK)
def recipes(request: Request, page: PageNumber = 1) -> Response:
    """List the recipes, newest first; a page number past the end shows the last page."""
    return _list_page(request, page)


def _list_page(request: Request, page: int = 1, *, wrong: RecipeRow | None = None) -> Response:
    with session_of(request) as session:
        found = find_page(lambda n: service.list_recipes(session, number=n), page)
        covers = service.find_covers(session, found.items)
        rows = [
            RecipeRow(service.open_recipe(session, one), covers.get(one.key), one.name)
            for one in found.items
        ]
        deleted = has_deleted(session, Recipe)
    if wrong is not None:
        rows = [wrong if row.recipe.key == wrong.recipe.key else row for row in rows]
    return render(
        request,
        "playground/recipes.html",
        status=422 if wrong else 200,
        found=found.of(rows),
        pages_link=page_prefix(RECIPES),
        has_deleted=deleted,
    )


@router.get(f"{RECIPES}/{{slug}}", Action.LOOK)
def open_recipe(request: Request, slug: Slug, session: Reading) -> Response:
    """Open the playground with a recipe; what of it is gone is said, the rest is there."""
    opened = service.open_recipe(session, service.recipe_by_slug(session, slug))
    form = form_of_recipe(session, opened)
    result = finished_result(session, form)
    panel = RecipePanel(opened.recipe.name, "", opened)
    context = play_page(session, form, result=result, recipe=panel)
    return render(request, "playground/play.html", context)


@router.post(f"{RECIPES}/{{recipe_id}}/rename", Action.EDIT)
def rename(request: Request, recipe_id: Id, state: State, sent: SentForm) -> Response:
    """Rename a recipe; on an error the list shows it beside what was typed."""
    name = str(sent.get("name", ""))
    try:
        with state.database.write() as session:
            recipe = service.rename_recipe(session, recipe_id, name)
    except InvalidInput as error:
        with state.database.read() as session:
            opened = service.open_recipe(session, service.get_recipe(session, recipe_id))
        return _list_page(request, wrong=RecipeRow(opened, None, name, error.detail))
    return redirect_with_notice(RECIPES, f"The recipe is called “{recipe.name}” now.")
