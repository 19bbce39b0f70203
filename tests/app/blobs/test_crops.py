"""Thumbnails are cut to squares around the focus point of their image."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from app.registry.datasets import service
from app.registry.datasets.new_images import NewImage
from app.registry.paths import STATIC
from app.registry.state import AppState
from app.web.templates import crop_place


@pytest.mark.parametrize(
    ("focus", "size", "place"),
    [
        (None, (400, 100), 50),
        ((0.5, 0.5), (400, 100), 50),
        ((0.0, 0.0), (400, 100), 0),
        ((0.125, 1.0), (400, 100), 0),  # in the middle of the first quarter
        ((0.25, 1.0), (400, 100), 17),
        ((0.75, 0.0), (400, 100), 83),
        ((1.0, 0.0), (400, 100), 100),
        ((1.0, 0.2), (100, 200), 0),
        ((0.0, 0.6), (100, 200), 70),
        ((0.0, 1.0), (100, 100), 50),
    ],
)
def test_the_place_keeps_the_focus_point_in_the_middle(
    focus: tuple[float, float] | None, size: tuple[int, int], place: int
) -> None:
    assert crop_place(focus, *size) == place


def test_the_style_sheet_reads_the_place_or_its_tens() -> None:
    css = (STATIC / "css" / "components.css").read_text()
    rules = re.findall(r'\[data-crop\^?="(\d+)"\] \{\s+object-position: (\d+)% (\d+)%;', css)
    middle = [(str(tens), str(10 * tens + 5), str(10 * tens + 5)) for tens in range(10)]
    assert [*middle[:5], *middle[6:], ("100", "100", "100")] == rules
    *_, last = re.findall(r"\[data-crop[^{]*\{[^}]*\}", css)
    assert "attr(data-crop %) attr(data-crop %)" in last


def test_panoramas_are_cut_around_their_focus_point(state: AppState, client: TestClient) -> None:
    with state.database.write() as session:
        dataset = service.create_dataset(session, "Wide")
        new = [NewImage(f"{n}.png", *(f"{n:064x}",) * 3, 400, 100, 1, "a wall") for n in range(2)]
        wide = service.add_images(session, dataset.key, new)[0].image
        wide.focus_x, wide.focus_y = 0.75, 0.5
        session.add(wide)
    edit = {"open": "write", "images": "1 2", "text": "a lake"}
    pages = [
        client.get("/datasets").text,
        client.get("/datasets/wide").text,
        client.get("/datasets/wide/checks").text,
        client.post("/datasets/wide/edits/preview", data=edit).text,
    ]
    assert [set(re.findall(r'data-crop="(\d+)"', page)) for page in pages] == [{"83"}] * 4
