import json
import subprocess
import sys

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import CLIPTokenizer

from worker.core.starter import EXAMPLE, EXAMPLE_PROMPTS, EXAMPLE_TRIGGER, PATH
from worker.core.starter.style import style_distance

MIB = 1 << 20


def captions() -> dict[str, str]:
    lines = (EXAMPLE / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["file_name"]: entry["text"] for entry in map(json.loads, lines)}


def test_naming_the_base_and_its_example_loads_no_torch() -> None:
    code = (
        "import sys, worker.core.starter, worker.core.starter.style, worker.core.starter.sheet;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_shipped_base_draws_what_it_is_asked_for(base_renders: list[Image.Image]) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(PATH, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        EXAMPLE_PROMPTS[2],
        height=64,
        width=64,
        guidance_scale=3.5,
        num_inference_steps=12,
        generator=torch.Generator().manual_seed(1),
    ).images[0]
    red, green, blue = drawn.resize((1, 1), box=(24, 24, 40, 40)).getpixel((0, 0))
    assert red > 150 > max(green, blue)
    assert min(drawn.getpixel((1, 1))) > 230
    assert style_distance([drawn], base_renders) < 2


def test_every_example_picture_is_captioned_and_of_512_pixels() -> None:
    named = captions()
    assert set(named) == {path.name for path in EXAMPLE.glob("*.webp")}
    assert len(named) == 24
    for name in named:
        with Image.open(EXAMPLE / name) as picture:
            assert picture.size == (512, 512)


def test_the_example_is_small_enough_to_come_with_the_project() -> None:
    assert sum(path.stat().st_size for path in EXAMPLE.iterdir()) < 6 * MIB


def test_captions_use_the_trigger_word_and_words_the_base_knows() -> None:
    tokenizer = CLIPTokenizer.from_pretrained(PATH / "tokenizer")
    for text in captions().values():
        name, style = text.split(", ")
        assert style == f"{EXAMPLE_TRIGGER} style"
        assert len(tokenizer.tokenize(name)) == len(name.split()), name


def test_prompts_to_try_name_subjects_the_example_never_shows() -> None:
    shown = {text.split(",")[0] for text in captions().values()}
    asked = {prompt.split(",")[0] for prompt in EXAMPLE_PROMPTS}
    assert len(asked) == 5
    assert asked.isdisjoint(shown)
    assert all(EXAMPLE_TRIGGER in prompt for prompt in EXAMPLE_PROMPTS)


@pytest.mark.parametrize("notice", ["Apache License", "MIT License", "CC BY 4.0", "Miles Johnson"])
def test_licenses_of_the_artwork_are_included(notice: str) -> None:
    assert notice in (PATH.parent / "LICENSES.md").read_text(encoding="utf-8")
