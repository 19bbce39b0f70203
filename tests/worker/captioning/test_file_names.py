"""Captions from the names of image files."""

from __future__ import annotations

import pytest

from worker.core.captioning.file_names import CODE, GIVEN, SHARED, captions_of_files


def caption(filename: str) -> str:
    (answer,) = captions_of_files([filename])
    return answer.text


def captions(*filenames: str) -> list[str]:
    return [answer.text for answer in captions_of_files(filenames)]


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("red_fox-02.png", "red fox"),
        ("Red Fox (3).JPG", "red fox"),
        ("redFoxInSnow.webp", "red fox in snow"),
        ("HTTPServer.png", "http server"),
        ("RED_FOX.png", "red fox"),
        ("fox02.png.webp", "fox"),
        ("02fox_512px_v2.png", "fox"),
        ("2024-05-01 bird's nest.png", "bird's nest"),
        ("letter-b.png", "letter b"),
        ("Bücherregal_1.png", "bücherregal"),
        ("Bu\u0308cher.png", "bücher"),
        ("赤い狐_02.png", "赤い狐"),
        ("лиса-в-снегу.png", "лиса в снегу"),
        ("हिन्दी_१२.png", "हिन्दी"),
        ("IMG_1234 red fox.png", "red fox"),
        ("fox_550e8400-e29b-41d4-a716-446655440000.png", "fox"),
        ("fox_9f2c1e77.png", "fox"),
        ("decade01.png", "decade"),
        ("no suffix", "no suffix"),
        ("download.png", "download"),
    ],
)
def test_words_of_a_file_name_are_a_caption(filename: str, expected: str) -> None:
    assert caption(filename) == expected


@pytest.mark.parametrize(
    ("filename", "reason"),
    [
        ("0001.png", CODE),
        ("1F98A.png", CODE),
        ("1f469-200d-1f9b0.png", CODE),
        ("550e8400-e29b-41d4-a716-446655440000.png", CODE),
        ("da39a3ee5e6b4b0d3255bfef95601890afd80709.png", CODE),
        ("FxYz83kLm20qWe.jpg", CODE),
        ("f8kq2zx9w1.png", CODE),
        ("🦊.png", CODE),
        ("IMG_1234.jpg", GIVEN),
        ("DSC0001.JPG", GIVEN),
        ("_DSC0001.JPG", GIVEN),
        ("PXL_20240501_101112.jpg", GIVEN),
        ("Screenshot 2024-01-02 at 10.20.30 PM.png", GIVEN),
        ("Screen Shot 2024-01-02.png", GIVEN),
        ("Bildschirmfoto 2024-01-02 um 10.20.30.png", GIVEN),
        ("WhatsApp Image 2024-01-02 at 10.20.30.jpeg", GIVEN),
        ("ComfyUI_00012_.png", GIVEN),
        ("image (3).png", GIVEN),
        ("untitled.png", GIVEN),
    ],
)
def test_a_name_that_no_person_chose_gives_no_caption_but_a_reason(
    filename: str, reason: str
) -> None:
    (answer,) = captions_of_files([filename])
    assert (answer.text, answer.note) == ("", reason)


def test_words_that_all_names_share_are_left_out() -> None:
    names = ("openmoji_red_fox-1.png", "openmoji-car.png", "Openmoji snow.png", "IMG_1.png")
    assert captions(*names) == ["red fox", "car", "snow", ""]
    assert captions(names[0]) == ["openmoji red fox"]


def test_a_name_with_only_shared_words_gives_no_caption_but_the_reason() -> None:
    red_fox, car, number = captions_of_files(
        ["openmoji_red_fox.png", "openmoji_car.png", "openmoji_IMG_2044.png"]
    )
    assert (red_fox.text, car.text) == ("red fox", "car")
    assert (number.text, number.note) == ("", SHARED)


def test_shared_words_stay_where_nothing_else_would_remain() -> None:
    assert captions("cat-1.png", "cat-2.png") == ["cat", "cat"]
    assert captions("cat.png", "cat_sleeping.png") == ["cat", "cat sleeping"]
    assert captions("IMG_1 cat.png", "cat_2.png") == ["cat", "cat"]
    assert captions() == []
