"""The images of an adapter: samples of its training, and renders of the playground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session, select

from app.registry.adapters import service
from app.registry.adapters.library.cards import belongs_to_version
from app.registry.adapters.service import AdapterSummary
from app.registry.datasets.caption_words import contains_words
from app.registry.errors import InvalidInput, NotFound
from app.registry.job_kinds.weighted import ResolvedAdapter
from app.registry.renders import listing
from app.registry.renders import service as playground
from app.registry.tables.adapters import Adapter, AdapterVersion
from app.registry.tables.renders import Render
from app.registry.tables.runs import Sample

IMAGES_A_PAGE = 12


@dataclass(frozen=True)
class AdapterImage:
    """An image generated with the adapter, or its cover; `title` is the prompt, if known.

    `render` is the render that it is from; None for a sample or an imported cover.
    """

    sha256: str
    title: str
    is_cover: bool
    seed: int | None = None
    render: Render | None = None

    @property
    def href(self) -> str:
        """The page of its render, else the image itself."""
        return f"/renders/{self.render.key}" if self.render else f"/media/{self.sha256}"

    def used_by(self, adapter: Adapter) -> str:
        """The versions and weights of this adapter in the render, such as “v2 · 0.8, with Ink”."""
        stack = self.render.stack if self.render else []
        own = [f"v{used.version} · {used.weight:g}" for used in stack if _is_of(used, adapter)]
        others = dict.fromkeys(used.name for used in stack if not _is_of(used, adapter))
        return " and ".join(own) + (f", with {', '.join(others)}" if others else "")


def _is_of(used: ResolvedAdapter, adapter: Adapter) -> bool:
    return used.adapter_id == adapter.key


@dataclass(frozen=True)
class AdapterImages:
    """A page of renders with an adapter; `older` is the cursor of the next page."""

    shown: list[AdapterImage]
    older: int | None


@dataclass(frozen=True)
class LeadImages:
    """The image that the page shows large, and the choices beside it."""

    shown: AdapterImage | None
    choices: list[AdapterImage]


def lead_images(
    session: Session, summary: AdapterSummary, version: AdapterVersion, *, chosen: str = ""
) -> LeadImages:
    """The samples of a version, after the cover of its adapter if that is another image.

    Shown is the `chosen` one, given by its hash; else the cover on the page of the version in use,
    and the first sample on that of any other.
    """
    samples = list_samples(session, summary, version)
    cover = next((image for image in samples if image.is_cover), None)
    choices = samples
    imported = summary.adapter.imported_cover_sha256
    if imported and [imported] != summary.covers[:1]:
        choices = [*samples, AdapterImage(imported, "", is_cover=False)]
    if cover is None and summary.covers and (version.key == summary.version.key or not samples):
        cover = _cover_image(session, summary.adapter, summary.covers[0])
        choices = [cover, *choices]
    usual = cover if version.key == summary.version.key else next(iter(samples), cover)
    shown = next((image for image in choices if image.sha256 == chosen), usual)
    return LeadImages(shown or next(iter(choices), None), choices)


def list_samples(
    session: Session, summary: AdapterSummary, version: AdapterVersion
) -> list[AdapterImage]:
    """The samples of a version, each image once."""
    samples = {row.sha256: row for row in reversed(service.version_samples(session, version))}
    return [
        AdapterImage(sha256, row.prompt, [sha256] == summary.covers[:1], seed=row.seed)
        for sha256, row in reversed(samples.items())
    ]


def list_renders(
    session: Session, summary: AdapterSummary, *, before: int | None = None
) -> AdapterImages:
    """The newest renders with an adapter, each image once.

    With `before`, the id of a render, only earlier ones.
    """
    renders = listing.adapter_renders(
        session, summary.adapter.key, limit=IMAGES_A_PAGE + 1, before=before
    )
    has_older, renders = len(renders) > IMAGES_A_PAGE, renders[:IMAGES_A_PAGE]
    return AdapterImages(
        shown=_render_images(session, summary, renders),
        older=renders[-1].key if has_older else None,
    )


def render_image(session: Session, summary: AdapterSummary, render_id: int) -> AdapterImage:
    """A finished render with an adapter. Raises NotFound, also if it has no image."""
    found = _render_images(session, summary, [playground.get_render(session, render_id)])
    if not found:
        raise NotFound("This render has no image.")
    return found[0]


def _render_images(
    session: Session, summary: AdapterSummary, renders: Sequence[Render]
) -> list[AdapterImage]:
    return [
        AdapterImage(
            one.image.sha256,
            one.render.prompt,
            [one.image.sha256] == summary.covers[:1],
            one.render.seed,
            one.render,
        )
        for one in listing.distinct_images(session, renders)
    ]


def _cover_image(session: Session, adapter: Adapter, sha256: str) -> AdapterImage:
    """The cover with its prompt, if it is a sample of another version or a render."""
    if sample := find_sample(session, adapter.key, sha256):
        return AdapterImage(sha256, sample.prompt, is_cover=True, seed=sample.seed)
    if render := listing.find_render_of(session, adapter.key, sha256):
        return AdapterImage(sha256, render.prompt, is_cover=True, seed=render.seed, render=render)
    return AdapterImage(sha256, "", is_cover=True)


def find_sample(session: Session, adapter_id: int, sha256: str) -> Sample | None:
    """The sample of a version of this adapter that is this image."""
    sampled = (
        select(Sample)
        .join(AdapterVersion, belongs_to_version())
        .where(AdapterVersion.adapter_id == adapter_id, Sample.sha256 == sha256)
    )
    return session.exec(sampled.limit(1)).first()


def prompt_to_try(adapter: Adapter, images: Sequence[AdapterImage]) -> str:
    """A prompt that calls the adapter: the first of these images that has a trigger word of it.

    Else that of a sample with the first trigger word added, else the word; empty if all is unknown.
    """
    words = adapter.trigger_words
    prompts = [image.title for image in images if image.title]
    if not words:
        return next(iter(prompts), "")
    for prompt in prompts:
        if any(contains_words(prompt, word) for word in words):
            return prompt
    samples = (image.title for image in images if image.title and image.render is None)
    return ", ".join(filter(None, (next(samples, ""), words[0])))


def require_adapter_image(session: Session, adapter: Adapter, sha256: str) -> None:
    """Raise InvalidInput unless the image is of the adapter: sample, render or imported cover."""
    if sha256 in (adapter.cover_sha256, adapter.imported_cover_sha256):
        return
    if find_sample(session, adapter.key, sha256):
        return
    if not listing.find_render_of(session, adapter.key, sha256):
        sentence = "Only an image generated with this adapter can be its cover."
        raise InvalidInput(sentence, fields={"cover_sha256": sentence})
