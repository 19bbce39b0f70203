"""The script that makes the screenshots, on prepared pages: `make screenshots` also trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, ImageStat
from playwright.sync_api import Browser

from docs.screenshots import camera, scenes
from docs.screenshots.camera import DESKTOP, Camera
from docs.screenshots.overview import Overview, SampleRow, overview_page
from docs.screenshots.workflow import Pair
from tests import fake_workers
from tests.browser.conftest import Live
from tests.images import make_png

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True)
def quick_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last tenth of a file takes the encoder four fifths of its time; all limits hold."""
    monkeypatch.setattr(camera, "EFFORT", 2)


def brightness(path: Path) -> float:
    """The mean of all pixels, 0 to 255."""
    with Image.open(path) as image:
        return ImageStat.Stat(image.convert("L")).mean[0]


def test_a_page_is_photographed_in_both_themes(
    live: Live, chromium: Browser, tmp_path: Path
) -> None:
    fake_workers.ready_base(live.state)
    run = fake_workers.queued_run(live.state, fake_workers.dataset(live.state))
    training = fake_workers.FakeTraining(live.state)
    training.train(20)
    training.sample(0)
    light, dark = scenes.training(Camera(chromium, live.url, tmp_path / "new"), run.key)
    assert (light.name, dark.name) == ("training-light.webp", "training-dark.webp")
    with Image.open(light) as image:
        assert (image.format, image.width) == ("WEBP", DESKTOP.width)
    assert brightness(light) > 200
    assert brightness(dark) < 80


def test_the_overview_shows_every_image_in_three_panels(chromium: Browser, tmp_path: Path) -> None:
    png = make_png(1)
    overview = Overview(
        images=[png] * 18,
        subjects=["castle", "rocket", "frog"],
        rows=[SampleRow(step, [png] * 3) for step in (0, 100, 1_000)],
        pairs=[Pair(without=png, with_adapter=png)] * 3,
    )
    view = Camera(chromium, "", tmp_path)
    with overview_page(view, overview) as panels:
        assert panels.get_by_role("heading").count() == 3
        assert panels.locator("img").count() == 18 + 9 + 6
        assert "1,000" in panels.inner_text()
        light, _ = view.photograph(panels, "overview")
    with Image.open(light) as image:
        assert image.convert("RGBA").getpixel((0, 0))[3] == 0, "the corners are not transparent"
