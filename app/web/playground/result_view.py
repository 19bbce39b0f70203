"""A render as pages show it: in progress with a preview, finished beside its twin."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace

from starlette.responses import Response

from app.registry.adapters import service as adapters
from app.registry.base_models import service as base_models
from app.registry.comparison.renders import stack_words, weight_words
from app.registry.db import Session
from app.registry.job_kinds.states import JobStatus
from app.registry.renders import listing, service
from app.registry.renders.listing import ShownRender
from app.registry.tables.added_models import BaseModel
from app.registry.tables.renders import Render, RenderImage
from app.web.comparison import ComparedImage
from app.web.playground.forms import PlayForm, form_of_render, form_of_restyle
from app.web.playground.image_notes import note_after
from app.web.templates import render_fragment

STRIP = 12
WITHOUT = "Without your style"
ORIGINAL = "Original"
OUT_OF_DATE = "Out of date"


@dataclass(frozen=True)
class ResultView:
    """A render with its twin, in any state.

    `here`: ids of its adapters that still exist. `old`: the image that was shown before, which
    stays in view until there is a newer one.
    """

    render: Render
    image: RenderImage | None
    twin: Render | None
    twin_image: RenderImage | None
    base: BaseModel
    again: str
    worker_present: bool
    here: set[int]
    images: Sequence[RenderImage] = ()
    old: RenderImage | None = None

    @property
    def several(self) -> list[tuple[RenderImage, str, str]]:
        """Each of several images, with its seed or weights, and the address of it alone."""
        if len(self.images) < 2:
            return []
        if self.render.weights is None:
            form = form_of_render(self.render, self.base.slug)
            return [
                (one, f"Seed {one.seed}", replace(form, seed=str(one.seed), count="1").link)
                for one in self.images
            ]
        return [
            (
                one,
                weight_words(self.render, one.index),
                form_of_render(self.render, self.base.slug, one.index).link,
            )
            for one in in_order(self.images, self.render.weights)
        ]

    @property
    def prompt_link(self) -> str:
        """The playground with the prompt of this render and nothing else of it."""
        return PlayForm(prompt=self.render.prompt).link

    @property
    def seed_link(self) -> str:
        """The playground with the seed of this render and nothing else of it."""
        return PlayForm(seed=str(self.render.seed)).link

    @property
    def restyle_link(self) -> str:
        """The playground that starts from the image, with the adapters of this render."""
        return form_of_restyle(self.render, self.here).link

    @property
    def is_active(self) -> bool:
        """True while an image is still to come."""
        return self.render.state.is_active or bool(self.twin and self.twin.state.is_active)

    @property
    def title(self) -> str:
        """The adapters and their weights, as a short title."""
        return stack_words(self.render)

    @property
    def is_draft(self) -> bool:
        """True for a live redraw that was not kept."""
        return self.render.draft_slot is not None

    @property
    def progress(self) -> str:
        """The progress of the image as a short text; empty once it is there."""
        return progress_of(self.render, worker_present=self.worker_present)

    @property
    def twin_progress(self) -> str:
        """The progress of the twin; empty without one."""
        if self.twin is None:
            return ""
        return progress_of(self.twin, worker_present=self.worker_present)

    @property
    def announcement(self) -> str:
        """A sentence about the end for a screen reader; empty before."""
        if self.is_active:
            return ""
        if self.image is None:
            return self.render.error or "Canceled."
        return (
            f"Generated with {self.title}."
            if self.render.adapters
            else "Generated without adapters."
        )

    @property
    def main_side(self) -> ComparedImage | None:
        """The image, or what is shown in its place until it is there."""
        render = self.render
        if self.image is not None:
            return ComparedImage(self.image.sha256, self.title, render.prompt)
        if not render.state.is_active:
            return None
        if render.preview is not None:
            source = f"data:image/webp;base64,{base64.b64encode(render.preview).decode()}"
            return ComparedImage("", self.progress, "", preview=source)
        if self.old is not None:
            return ComparedImage(self.old.sha256, OUT_OF_DATE, "The image before", is_old=True)
        return None

    @property
    def pairs(self) -> list[tuple[ComparedImage, ComparedImage]]:
        """The images to compare: one with its twin, both with the image that they start from.

        Empty for several images, and unless there is something of the image and of its twin.
        """
        main, twin, source = self.main_side, self.twin_side, self.source_side
        if main is None or self.render.count > 1 or (twin is None and self.twin is not None):
            return []
        pairs = ((main, twin), (twin, source), (main, source))
        return [(one, other) for one, other in pairs if one and other]

    @property
    def source_side(self) -> ComparedImage | None:
        """The image that it starts from."""
        if self.render.source_sha256 is None:
            return None
        return ComparedImage(self.render.source_sha256, ORIGINAL, "The image that it starts from")

    @property
    def twin_side(self) -> ComparedImage | None:
        """The image without adapters, once it is there; weights of 0 make it the image itself."""
        stack = self.render.stack
        is_own = self.twin is None and bool(stack) and all(used.is_off for used in stack)
        image = self.image if is_own else self.twin_image
        if image is None:
            return None
        return ComparedImage(image.sha256, WITHOUT, f"{self.render.prompt}, without adapters")


def in_order(
    images: Sequence[RenderImage], weights: Sequence[Sequence[float | None]]
) -> list[RenderImage]:
    """The images of a strip by their weights; those of checkpoints as they were generated."""
    if any(None in weights[one.index] for one in images):
        return list(images)
    return sorted(images, key=lambda one: [weight or 0.0 for weight in weights[one.index]])


def progress_of(render: Render, *, worker_present: bool) -> str:
    """The progress of a render as a short text; empty once it has ended."""
    if render.state is JobStatus.RUNNING:
        return f"Step {render.progress} of {render.all_steps}"
    if render.state is JobStatus.QUEUED:
        if not worker_present:
            return "No render worker is running"
        return render.waits_for or "In line, starts in a moment"
    return ""


def instead_of_result(response: Response) -> Response:
    """The fragment of a result, put in the place of the result that the page shows by then.

    Without that, htmx puts it where the result was when it sent the request: an element that a poll
    may have replaced since.
    """
    response.headers["HX-Retarget"] = "#result"
    response.headers["HX-Reswap"] = "outerHTML"
    return response


def earlier_renders(session: Session) -> list[ShownRender]:
    """The newest results, for the strip; an image that was asked for again is there once."""
    renders = listing.recent_renders(session, limit=4 * STRIP)
    images = listing.first_images(session, renders)
    found: dict[str, ShownRender] = {}
    for render in renders:
        if image := images.get(render.key):
            found.setdefault(image.sha256, ShownRender(render, image))
    return list(found.values())[:STRIP]


def result_fragment(
    session: Session,
    render: Render,
    form: PlayForm | None = None,
    *,
    shown: int | None = None,
    is_own_page: bool = False,
) -> Response:
    """A result in progress, or finished with the strip of earlier ones.

    `shown`: the render whose image was shown before.
    """
    result = result_view(session, render, shown=shown)
    is_last = not (result.is_active or is_own_page)
    return render_fragment(
        "playground/_result_update.html",
        result=result,
        earlier=[] if result.is_active else earlier_renders(session),
        form=form,
        is_own_page=is_own_page,
        live_note=note_after(session, render, result.base) if is_last else "",
    )


def result_view(session: Session, render: Render, *, shown: int | None = None) -> ResultView:
    """A render with its twin and images, as it is now."""
    twin = service.get_render(session, render.twin_id) if render.twin_id else None
    rows = [render, twin] if twin else [render]
    images = listing.images_of(session, rows)
    base = base_models.base_of(session, render.base_model_id)
    return ResultView(
        render=render,
        image=next(iter(images[render.key]), None),
        twin=twin,
        twin_image=next(iter(images[twin.key]), None) if twin else None,
        images=images[render.key],
        base=base,
        again=form_of_render(render, base.slug).link,
        worker_present=service.has_render_worker(session),
        here=adapters.still_here(session, [used.adapter_id for used in render.stack]),
        old=next(iter(service.render_images(session, shown or 0)), None),
    )
