"""The image at the top of the README: a dataset, samples over the steps, with and without.

A page of our own in the app's colors, drawn by chromium, so that its text is crisp in both themes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import jinja2
from playwright.sync_api import Locator

from app.cli.demo import Api
from app.registry.paths import STATIC
from docs.screenshots.camera import Camera, Frame
from docs.screenshots.workflow import FinishedRun, Pair, subject_of

HERE = Path(__file__).parent
FRAME = Frame(960, 600, scale=2)  # a little more than the width of a README on GitHub
SHOWN_IMAGES = 18
SHOWN_SAMPLES = ("castle", "rocket", "frog")
"""Subjects of the presets' sample prompts that get a column."""

SHOWN_ROWS = 4
SHOWN_PAIRS = 4


@dataclass(frozen=True)
class SampleRow:
    """The samples of the first prompts at one step; at step 0 the adapter has no effect yet."""

    step: int
    images: Sequence[bytes]


@dataclass(frozen=True)
class Overview:
    """The images of the three panels, as PNG or WebP files; `subjects` head the sample columns."""

    images: Sequence[bytes]
    subjects: Sequence[str]
    rows: Sequence[SampleRow]
    pairs: Sequence[Pair]


def collect(api: Api, run: FinishedRun, pairs: Sequence[Pair]) -> Overview:
    """The first images of the dataset, sample rows over the whole run, and these pairs."""
    images = api.get(f"/api/v1/datasets/{run.dataset_id}/images").json()
    samples = {
        (sample["step"], subject_of(sample["prompt"])): sample["url"]
        for sample in api.get(f"/api/v1/runs/{run.run_id}/samples").json()
    }
    rows = [
        SampleRow(step, [api.get(samples[step, subject]).content for subject in SHOWN_SAMPLES])
        for step in spread(sorted({step for step, _ in samples}), SHOWN_ROWS)
    ]
    return Overview(
        images=[api.get(image["thumbnail_url"]).content for image in images[:SHOWN_IMAGES]],
        subjects=SHOWN_SAMPLES,
        rows=rows,
        pairs=pairs[:SHOWN_PAIRS],
    )


def spread(steps: Sequence[int], count: int) -> list[int]:
    """At most `count` of these: the first, the last, and evenly spaced ones between them."""
    if len(steps) <= count:
        return list(steps)
    return [steps[round(place * (len(steps) - 1) / (count - 1))] for place in range(count)]


@contextmanager
def overview_page(camera: Camera, overview: Overview) -> Iterator[Locator]:
    """A page with the three panels; gives the element to photograph."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_url"] = data_url
    html = environment.get_template("overview.html").render(
        overview=overview,
        tokens=(STATIC / "css" / "tokens.css").read_text(),
        styles=(HERE / "overview.css").read_text(),
    )
    with camera.page(FRAME) as page:
        page.set_content(html)
        yield page.locator("main")


def data_url(image: bytes) -> str:
    """The image as a URL that contains it."""
    kind = "png" if image.startswith(b"\x89PNG") else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
