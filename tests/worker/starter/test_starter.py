import subprocess
import sys

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from worker.core.starter import PATH
from worker.core.starter.style import style_distance
from worker.core.training.presets import SMALL_RESOLUTION, default_guidance


def test_naming_the_base_loads_no_torch() -> None:
    code = (
        "import sys, worker.core.starter, worker.core.starter.style, worker.core.starter.sheet,"
        " worker.core.starter.subjects; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_shipped_base_draws_what_it_is_asked_for(
    base_renders: list[Image.Image], example_images: dict[str, list[Image.Image]]
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(PATH, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    apple, frog = (
        pipeline(
            subject,
            guidance_scale=default_guidance(SMALL_RESOLUTION),
            num_inference_steps=12,
            generator=torch.Generator().manual_seed(1),
        ).images[0]
        for subject in ("red apple", "frog")
    )
    red, green, blue = middle_color(apple)
    assert red > 150 > max(green, blue)
    red, green, blue = middle_color(frog)
    assert green > 150 > blue
    assert min(apple.getpixel((1, 1))) > 230
    own = style_distance([apple, frog], base_renders)
    assert all(own < style_distance([apple, frog], styled) for styled in example_images.values())


def middle_color(image: Image.Image) -> tuple[int, int, int]:
    """The mean color of the middle quarter."""
    near, far = 3 * image.width // 8, 5 * image.width // 8
    return image.resize((1, 1), box=(near, near, far, far)).getpixel((0, 0))


@pytest.mark.parametrize("notice", ["Apache License", "MIT License", "CC BY 4.0", "Miles Johnson"])
def test_licenses_of_the_artwork_are_included(notice: str) -> None:
    assert notice in (PATH.parent / "LICENSES.md").read_text(encoding="utf-8")
