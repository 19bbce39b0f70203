"""Images in parts, so that few adapters are in use at once."""

from __future__ import annotations

from app.registry.job_kinds.weighted import in_parts


def test_the_images_of_a_part_have_few_adapters_together() -> None:
    images = list(enumerate(["ab", "a", "", "ac", "c", "da"]))
    assert in_parts(images, most=9, adapters=2) == [[0, 1, 2], [3, 4], [5]]
    assert in_parts(images, most=2, adapters=9) == [[0, 1], [2, 3], [4, 5]]
    assert in_parts(images[:1], most=9, adapters=1) == [[0]]  # one image can have more
