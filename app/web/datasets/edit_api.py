"""REST: bulk edits of a dataset, with their preview and undo."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Self

from pydantic import Field, StrictBool, WithJsonSchema

from app.registry.api_records import name_of
from app.registry.datasets import service
from app.registry.datasets.captions import MAX_CHARACTERS
from app.registry.datasets.edits.actions import MADE_ELSEWHERE, Edit, EditAction
from app.registry.datasets.edits.applying import apply_edit
from app.registry.datasets.edits.plan import EditOutcome, LeftOut, plan_edit
from app.registry.datasets.edits.selection import MAX_SELECTED, Selection, read_seen
from app.registry.datasets.edits.steps import Step, list_steps, undo_edit
from app.registry.datasets.filters import ImageFilter
from app.registry.slugs import Reference, RowId
from app.registry.state import AppState
from app.registry.tables.datasets import MAX_REPEATS, Dataset
from app.web.access.needs import Action, Router
from app.web.answers import Answer
from app.web.problems import problems
from app.web.rest.bodies import example
from app.web.rest.lists import Part
from app.web.state import DatasetId, Id, Reading, State, Writing, find_id
from worker.core.documented import DocumentedModel
from worker.core.words import CaptionKind

router = Router(tags=["datasets"])

SHOWN = 100  # changes in an answer
ASKED = [action for action in EditAction if action not in MADE_ELSEWHERE]
AskedAction = Annotated[EditAction, WithJsonSchema({"type": "string", "enum": ASKED})]


class EditIn(DocumentedModel):
    """A bulk edit: the images, the action and its settings; those of other actions are ignored."""

    model_config = example(action="add_trigger", text="ink", all=True, preview=True)
    action: AskedAction = Field(description="What to do with the images.")
    image_ids: list[RowId] = Field(default_factory=list, max_length=MAX_SELECTED)
    """Ids of the images; with `all`, of those to leave out."""
    all: StrictBool = Field(False, description="All images that match `filter`.")
    filter: str = Field("", max_length=2_000)
    """The filter of `all`, as in the address of the page: `show=no_trigger&q=fox`."""
    text: str = Field("", max_length=MAX_CHARACTERS)
    """The trigger word, the text to put before or after, the tag or the words to remove, or the new
    caption."""
    find: str = Field("", max_length=MAX_CHARACTERS, description="The text to replace.")
    replacement: str = Field("", max_length=MAX_CHARACTERS)
    r"""What takes its place; with `regex`, `\1` and `\g<name>` are groups."""
    is_regex: StrictBool = Field(False, alias="regex")
    """True if `find` is an expression of RE2."""
    match_case: StrictBool = Field(False, description="True if “Fox” is not “fox”.")
    whole_words: StrictBool = Field(False, description="True if “fox” is not found in “foxglove”.")
    at_end: StrictBool = Field(False, description="True to add the trigger word at the end.")
    sets_trigger: StrictBool = False
    """True to make the added trigger word that of the dataset, too, also where all captions have
    it."""
    with_space: StrictBool = Field(False, description="True to join text by a space, not a comma.")
    repeats: Annotated[int, Field(ge=1, le=MAX_REPEATS)] = 1
    """How often one epoch shows the images."""
    value: StrictBool = Field(True, description="False takes never flip or set aside back.")
    dataset_id: Reference | None = None
    """The dataset to move or copy to: its id or slug."""
    kind: CaptionKind | None = None
    """Only captions of this kind; null: all captions of an image."""
    preview: StrictBool = Field(False, description="True to see the changes without making them.")
    seen: str | None = Field(None, max_length=400_000)
    """`seen` of a preview: only its images change, and captions that were edited since are left
    out."""

    def edit(self, state: AppState) -> Edit:
        """The action with its settings."""
        values = {name: getattr(self, name) for name in Edit.__dataclass_fields__}
        return Edit(**values | {"dataset_id": find_id(state, Dataset, self.dataset_id)})

    def selection(self) -> Selection:
        """The images."""
        wanted = ImageFilter.from_text(self.filter)
        return Selection(frozenset(self.image_ids), self.all, wanted)


class ChangeOut(Answer):
    """A change to an image, or to one of its captions."""

    image_id: int = Field(description="Id of the image.")
    filename: str = Field(description="Name of the uploaded file.")
    kind: CaptionKind | None
    """Kind of the caption; null: the first one, or the image itself."""
    before: dict[str, Any] = Field(description="The fields before.")
    after: dict[str, Any] = Field(description="The fields after.")


class EditOut(Answer):
    """The result of an edit, or of its preview."""

    id: int | None = Field(description="Id of the step to undo; null: nothing was changed.")
    changed: int = Field(description="Number of changed captions, or images.")
    unchanged: int = Field(description="Number of captions or images that stay as they are.")
    left_out: list[LeftOut] = Field(description="The images that were left out.")
    changes: list[ChangeOut] = Field(description=f"Of a preview, the first {SHOWN} changes.")
    seen: str | None = Field(description="Of a preview: send it back to apply exactly that.")

    @classmethod
    def of_outcome(cls, outcome: EditOutcome) -> Self:
        """A bulk edit that was made, or its undo."""
        return cls.of(outcome, id=outcome.step and outcome.step.key, changes=[], seen=None)


@router.post("/datasets/{dataset_id}/edits", Action.EDIT)
def edit_images(dataset_id: DatasetId, body: EditIn, state: State) -> EditOut:
    """Change many images at once, as one step that can be undone.

    Captions that would be too long, and with `seen` those that were edited meanwhile, are left
    out and named. Regular expressions are those of RE2, without look-around and back-references.
    """
    seen = read_seen(body.seen) if body.seen else None
    edit = body.edit(state)
    if not body.preview:
        outcome = apply_edit(state.database, dataset_id, edit, body.selection(), seen=seen)
        return EditOut.of_outcome(outcome)
    with state.database.read() as session:
        dataset = service.get_dataset(session, dataset_id)
        plan = plan_edit(session, dataset, edit, body.selection(), seen=seen)
    return EditOut.of(
        plan,
        id=None,
        changes=[
            ChangeOut.of(
                change,
                image_id=change.image.id,
                filename=change.image.filename,
                kind=change.kind or None,
            )
            for change in plan.changes[:SHOWN]
        ],
        seen=plan.seen.token(),
    )


@router.get("/datasets/{dataset_id}/edits", Action.LOOK)
def list_dataset_edits(dataset_id: DatasetId, session: Reading, part: Part) -> list[Step]:
    """List the bulk edits of a dataset, newest first."""
    service.get_dataset(session, dataset_id)
    steps = list_steps(session, dataset_id, limit=None)
    return [
        replace(step, settings={name_of(name): one for name, one in step.settings.items()})
        for step in part.of(steps, lambda step: step.id)
    ]


@router.post(
    "/datasets/{dataset_id}/edits/{edit_id}/undo",
    Action.EDIT,
    responses=problems({409: "It was undone already, or is too old."}),
)
def undo_dataset_edit(dataset_id: DatasetId, edit_id: Id, session: Writing) -> EditOut:
    """Undo a bulk edit.

    What was changed or deleted since stays as it is and is named. If that is everything, `changed`
    is 0 and the step can still be undone, as after an undo of the edits after it.
    """
    return EditOut.of_outcome(undo_edit(session, dataset_id, edit_id))
