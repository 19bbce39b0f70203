"""The view of bulk edits on the page of a dataset: the bar, the preview, the steps to undo."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from app.registry.datasets.edits.actions import Edit, EditAction
from app.registry.datasets.edits.differences import Piece, differences
from app.registry.datasets.edits.plan import Change, EditPlan, LeftOut, plan_edit
from app.registry.datasets.edits.selection import SelectedImage, Selection
from app.registry.datasets.edits.steps import Step, list_steps
from app.registry.datasets.figures import DatasetChoice, dataset_choices
from app.registry.datasets.filters import ImageFilter
from app.registry.datasets.several_captions import has_several_captions
from app.registry.db import Session
from app.registry.errors import InvalidInput
from app.registry.paging import Page, page_of
from app.registry.tables.datasets import Dataset
from app.web.datasets.edit_forms import CHOICES, FIRST_ROWS, ON_THE_BAR, Choice, EditForm
from worker.core.words import CaptionKind

NAMED = 10  # images that are left out and named one by one


@dataclass(frozen=True)
class ChangeRow:
    """A change in the preview: its image, and the caption word by word, or a sentence."""

    image: SelectedImage
    kind: str
    pieces: list[Piece]
    words: str


NO_CHANGES = Page[ChangeRow]([], 0, 1, FIRST_ROWS)


@dataclass(frozen=True)
class EditPreview:
    """The first changes of an edit. `says` tells screen readers the same in a sentence."""

    sentence: str = ""
    says: str = ""
    unchanged: str = ""
    changes: Page[ChangeRow] = NO_CHANGES
    left_out: list[LeftOut] = field(default_factory=list)
    left_out_more: int = 0
    seen: str = ""
    sets_trigger: bool = False
    errors: dict[str, str] = field(default_factory=dict)
    waits_for: str = ""


@dataclass(frozen=True)
class EditPanel:
    """The form of an edit with its preview."""

    choice: Choice
    edit: Edit
    preview: EditPreview
    datasets: list[DatasetChoice]
    kinds: list[CaptionKind]

    @property
    def dataset_options(self) -> list[tuple[int, str]]:
        """The other datasets to choose from, with their names."""
        return [(choice.id, choice.name) for choice in self.datasets]

    @property
    def kind_options(self) -> list[tuple[str, str]]:
        """The kinds of captions to choose from, with their labels."""
        return [(kind.value, kind.label) for kind in self.kinds]


@dataclass(frozen=True)
class BulkBar:
    """The bar above the images: the actions, and which images are selected."""

    choices: tuple[Choice, ...]
    more: tuple[Choice, ...]
    matching: int
    filter_query: str
    selection: Selection
    panel: EditPanel | None
    steps: list[Step]

    @property
    def selected(self) -> int:
        """Number of selected images."""
        chosen = len(self.selection.image_ids)
        return max(0, self.matching - chosen) if self.selection.all_matching else chosen

    def is_selected(self, image_id: int) -> bool:
        """True if the image is selected."""
        return self.selection.all_matching != (image_id in self.selection.image_ids)


NOTHING = Selection()


def bulk_bar(
    session: Session,
    dataset: Dataset,
    wanted: ImageFilter,
    matching: int,
    *,
    form: EditForm | None = None,
    selection: Selection = NOTHING,
) -> BulkBar:
    """The bar for a filter that so many match, with the form and preview of an open edit."""
    panel = edit_panel(session, dataset, form) if form else None
    return BulkBar(
        CHOICES[:ON_THE_BAR],
        CHOICES[ON_THE_BAR:],
        matching,
        form.filter_query if form else wanted.query,
        form.selection if form else selection,
        panel,
        list_steps(session, dataset.key, to_undo=True),
    )


def edit_panel(session: Session, dataset: Dataset, form: EditForm) -> EditPanel:
    """The form of an edit with its first changes, or with what is wrong with it."""
    others = [choice for choice in dataset_choices(session) if choice.id != dataset.key]
    edit = form.edit
    if "dataset_id" in form.choice.fields and edit.dataset_id is None and others:
        edit = replace(edit, dataset_id=others[0].id)
    if form.is_new and edit.action is EditAction.ADD_TRIGGER:
        edit = replace(edit, text=edit.text or dataset.trigger_word or "", sets_trigger=True)
    return EditPanel(
        form.choice,
        edit,
        _preview(session, dataset, replace(form, edit=edit)),
        others if "dataset_id" in form.choice.fields else [],
        list(CaptionKind)
        if edit.changes_captions and has_several_captions(session, dataset.key)
        else [],
    )


def _preview(session: Session, dataset: Dataset, form: EditForm) -> EditPreview:
    if waits_for := _waits_for(form):
        return EditPreview(waits_for=waits_for)
    try:
        plan = plan_edit(session, dataset, form.edit, form.selection)
    except InvalidInput as error:
        fields = error.fields or {"": error.detail}
        return EditPreview(errors=fields, says=" ".join(fields.values()))
    return preview_of(plan, form.rows)


def _waits_for(form: EditForm) -> str:
    """A sentence that asks for the text a preview needs; "" if it is there."""
    edit, choice = form.edit, form.choice
    if choice.key == "write" and form.is_new and not edit.text.strip():
        return "Enter the new caption, and every change is shown here."
    if "text" in choice.fields and not edit.text.strip() and choice.key != "write":
        return "Enter the text, and every change is shown here."
    if "find" in choice.fields and not edit.find:
        return "Enter the text to find, and every change is shown here."
    return ""


def preview_of(plan: EditPlan, rows: int) -> EditPreview:
    """The first changes of a plan."""
    shown = page_of(plan.changes, 1, rows)
    stay = "stays" if plan.unchanged == 1 else "stay"
    unchanged = f"{plan.unchanged:,} {stay} as {'it is' if plan.unchanged == 1 else 'they are'}."
    left_out = f"{len(plan.left_out):,} left out." if plan.left_out else ""
    says = (f"{plan.sentence}.", unchanged if plan.unchanged else "", left_out)
    return EditPreview(
        plan.sentence,
        " ".join(part for part in says if part),
        unchanged if plan.unchanged else "",
        shown.of([_row(change, plan.edit.action) for change in shown.items]),
        plan.left_out[:NAMED],
        max(0, len(plan.left_out) - NAMED),
        plan.seen.token(),
        plan.edit.sets_trigger,
    )


def _row(change: Change, action: EditAction) -> ChangeRow:
    if "caption" in change.after:
        pieces = differences(change.before["caption"], change.after["caption"])
        words = f"{change.image.filename}: " if action is EditAction.FILE_NAMES else ""
        return ChangeRow(change.image, change.kind, pieces, words)
    words = change.image.filename
    if "repeats" in change.after:
        words += f": {change.before['repeats']} → {change.after['repeats']} repeats"
    return ChangeRow(change.image, "", [], words)
