import pytest
from PIL import Image

from worker.core.starter.sheet import CELL, contact_sheet

RED, BLUE = (200, 20, 20), (20, 20, 200)


def test_every_picture_is_on_the_sheet_under_its_column_and_beside_its_row() -> None:
    images = [
        [Image.new("RGB", (64, 64), RED), Image.new("RGB", (64, 64), BLUE)],
        [Image.new("RGB", (64, 64), BLUE), Image.new("RGB", (64, 64), RED)],
    ]
    sheet = contact_sheet(["weight 0", "weight 1"], ["castle", "rocket"], images, title="Chalk")
    colors = {color: count for count, color in sheet.getcolors(1 << 20) or []}
    assert colors[RED] == colors[BLUE] == 2 * CELL * CELL


def test_small_pictures_are_enlarged_without_smoothing() -> None:
    chequered = Image.new("RGB", (2, 2), RED)
    chequered.putpixel((0, 0), BLUE)
    sheet = contact_sheet(["row"], ["column"], [[chequered]])
    vivid = [color for _, color in sheet.getcolors(1 << 20) or [] if max(color) - min(color) > 40]
    assert sorted(vivid) == sorted([RED, BLUE])


def test_labels_change_the_sheet() -> None:
    picture = [[Image.new("RGB", (64, 64), RED)]]
    short = contact_sheet(["a"], ["b"], picture)
    assert short.tobytes() != contact_sheet(["a"], ["c"], picture).tobytes()
    long = contact_sheet(["a"], ["a prompt of many words that needs more than one line"], picture)
    assert long.width == short.width
    assert long.height > short.height


def test_a_missing_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="Expected 1 rows of 2 images"):
        contact_sheet(["row"], ["one", "two"], [[Image.new("RGB", (64, 64))]])
