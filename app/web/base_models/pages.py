"""The page of base models: the list, and a form to add one by path or from the Hub."""

from __future__ import annotations

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from app.registry.added_models import service as added_models
from app.registry.base_models import precisions, service
from app.registry.base_models.service import BASE_MODELS
from app.registry.base_models.subjects import has_subject_list, subjects_of
from app.registry.deletion import base_models as removal
from app.registry.errors import NotFound
from app.registry.state import AppState
from app.registry.tables.added_models import EMBEDDED
from app.web.access.needs import Action, Router
from app.web.added_models import PRECISIONS, ModelPages, SentModel, models_page
from app.web.forms import SentForm
from app.web.state import Id, Reading, Words, Writing
from app.web.templates import render
from worker.core.families.others import SUPPORTED
from worker.core.families.variants import Variant

router = Router(include_in_schema=False)

GROUP_TITLES = {
    "animals-nature": "Animals and plants",
    "food-drink": "Food and drink",
    "travel-places": "Places, vehicles and sky",
    "activities": "Activities and festivals",
    "objects": "Objects",
}


@router.get(f"{BASE_MODELS.address}/{{base_id}}/subjects", Action.LOOK)
def show_subjects(request: Request, base_id: Id, session: Reading, q: Words = "") -> Response:
    """List what a base model can draw, each with a link into the playground."""
    base = service.get_base_model(session, base_id)
    if not has_subject_list(base):
        raise NotFound(f"“{base.name}” brings no list of subjects. It can be prompted freely.")
    found = subjects_of(base, q)
    groups = [
        (title, [subject for subject in found if subject.group == group])
        for group, title in GROUP_TITLES.items()
    ]
    return render(
        request,
        "base_models/subjects.html",
        base=base,
        words=q.strip(),
        total=len(subjects_of(base)),
        found=len(found),
        groups=[(title, subjects) for title, subjects in groups if subjects],
    )


@router.post(f"{BASE_MODELS.address}/{{base_id}}/variant", Action.ADMIN)
def correct_variant(request: Request, base_id: Id, session: Writing, form: SentForm) -> Response:
    """Correct the variant of a base model."""
    sent = str(form.get("variant", ""))
    if sent in set(Variant):
        service.correct_variant(session, base_id, Variant(sent))
    return RedirectResponse(BASE_MODELS.address, status_code=303)


def _show(request: Request, state: AppState, sent: SentModel, status: int) -> Response:
    with state.database.read() as session:
        bases = [*service.list_base_models(session), *removal.list_retired(session)]
        rows = added_models.list_with_progress(session, BASE_MODELS, bases)
        resting = [row.model for row in rows if row.download is None]
        removals = removal.removal_effects(session, resting, state.settings)
        image_precisions = {
            base.key: [choice for choice in precisions.present_choices(session, base) if choice]
            for base in bases
        }
    return render(
        request,
        "base_models/index.html",
        page=models_page(state, BASE_MODELS, rows, removals, sent),
        image_precisions=image_precisions,
        embedded=EMBEDDED,
        families=SUPPORTED,
        precisions=list(PRECISIONS.items()),
        variants=[(variant.value, variant.label) for variant in Variant],
        status=status,
    )


ModelPages(BASE_MODELS, _show, removal.remove).add_routes(router)
