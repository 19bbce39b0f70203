"""REST: prompt sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

from pydantic import Field

from app.registry import prompt_sets
from app.registry.slugs import Reference
from app.registry.tables.datasets import Dataset
from app.registry.validation import Name
from app.web.access.needs import Action, Router
from app.web.answers import OwnedAnswer
from app.web.problems import problems
from app.web.rest.bodies import Patch, change, example
from app.web.rest.lists import Part
from app.web.state import PromptSetId, Reading, State, Writing, find_id
from worker.core.documented import DocumentedModel
from worker.core.evaluation.subjects import MOST_SUBJECTS

router = Router(tags=["prompt-sets"])
NO_SET = problems({404: "There is no such prompt set."})
ANIMALS = ["a bear", "a cow", "a frog", "a giraffe", "a horse", "a snail"]
Subjects = Annotated[
    list[Annotated[str, Field(max_length=prompt_sets.MAX_SUBJECT)]],
    Field(min_length=prompt_sets.FEWEST_SUBJECTS, max_length=MOST_SUBJECTS),
]


class PromptSetIn(DocumentedModel):
    """A prompt set to create."""

    model_config = example(name="Animals", subjects=ANIMALS)
    name: Name = Field(description="Its name.")
    subjects: Subjects | None = None
    """What to draw, without the trigger word; absent: everyday subjects."""
    dataset_id: Reference | None = None
    """Id or slug of a dataset: absent subjects are none that it shows."""


class PromptSetPatch(Patch):
    """Changes to a prompt set."""

    model_config = example(subjects=[*ANIMALS, "an elephant"])
    name: Name = change("Its name.")
    subjects: Subjects = change("Its subjects: other ones are its next version.")


class PromptSetOut(OwnedAnswer):
    """A prompt set with the subjects of its newest version."""

    address: ClassVar[str] = "/api/v1/prompt-sets/{id}"
    id: int = Field(description="Id of the set.")
    slug: str = Field(description="Names it, too; `animals@2` is its version 2.")
    name: str = Field(description="Its name.")
    version: int = Field(description="Number of its newest version, from 1.")
    subjects: list[str] = Field(description="What this version draws.")


@router.get("/prompt-sets", Action.LOOK)
def list_prompt_sets(session: Reading, part: Part) -> Sequence[PromptSetOut]:
    """List prompt sets, newest first."""
    found = [PromptSetOut.of(row) for row in prompt_sets.list_sets(session)]
    return part.of(found, lambda row: row.id)


@router.post(
    "/prompt-sets",
    Action.CREATE,
    status_code=201,
    responses=problems({404: "There is no such dataset.", 409: "There are too many sets."}),
)
def create_prompt_set(body: PromptSetIn, state: State, session: Writing) -> PromptSetOut:
    """Create a prompt set: subjects that evaluations, samples and grids draw.

    Evaluations on the same version draw the same prompts, so that their scores compare.
    """
    dataset_id = find_id(state, Dataset, body.dataset_id)
    subjects = body.subjects or prompt_sets.propose(session, dataset_id)
    return PromptSetOut.of(prompt_sets.create_set(session, body.name, subjects))


@router.get("/prompt-sets/{set_id}", Action.LOOK, responses=NO_SET)
def get_prompt_set(set_id: PromptSetId, session: Reading) -> PromptSetOut:
    """Get a prompt set."""
    return PromptSetOut.of(prompt_sets.get_set(session, set_id))


@router.patch(
    "/prompt-sets/{set_id}", Action.EDIT, responses=NO_SET | problems({409: "Too many versions."})
)
def change_prompt_set(set_id: PromptSetId, body: PromptSetPatch, session: Writing) -> PromptSetOut:
    """Rename a prompt set, or give it other subjects, which are its next version."""
    row = prompt_sets.change_set(session, set_id, body.name, body.subjects)
    return PromptSetOut.of(row)
