"""The example styles: the images that ship, their captions and the prompts to try."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image
from transformers import CLIPTokenizer

from worker.core.starter import PATH
from worker.core.starter.examples import EXAMPLES, SUBJECTS, Example

MIB = 1 << 20
each_example = pytest.mark.parametrize("example", EXAMPLES.values(), ids=lambda one: one.key)


def captions(example: Example) -> dict[str, str]:
    lines = (example.folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    return {entry["file_name"]: entry["text"] for entry in map(json.loads, lines)}


def test_naming_the_examples_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, worker.core.starter.examples;"
        "sys.exit(len({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@each_example
def test_every_image_is_captioned_and_of_512_pixels(example: Example) -> None:
    named = captions(example)
    assert set(named) == {path.name for path in example.folder.glob("*.webp")}
    assert len(named) == 24
    for name in named:
        with Image.open(example.folder / name) as picture:
            assert picture.size == (512, 512)


@each_example
def test_an_example_is_small_enough_to_come_with_the_project(example: Example) -> None:
    assert sum(path.stat().st_size for path in example.folder.iterdir()) < 1.5 * MIB


@each_example
def test_captions_use_the_trigger_word_and_words_the_base_knows(example: Example) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(PATH / "tokenizer")
    for text in captions(example).values():
        name, style = text.split(", ")
        assert style == f"{example.trigger} style"
        assert len(tokenizer.tokenize(name)) == len(name.split()), name


@each_example
def test_prompts_to_try_name_subjects_that_no_image_shows(example: Example) -> None:
    asked = {prompt.split(",")[0] for prompt in example.prompts}
    assert len(asked) == len(SUBJECTS) == 7
    assert asked.isdisjoint(text.split(",")[0] for text in captions(example).values())
    assert all(prompt.endswith(f", {example.trigger} style") for prompt in example.prompts)


@each_example
def test_images_that_introduce_an_example_are_there(example: Example) -> None:
    assert all((example.folder / f"{name}.webp").is_file() for name in example.shown)
