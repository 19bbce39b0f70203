"""The names of adapter files."""

from __future__ import annotations

import pytest

from worker.core.lora_files.file_names import file_name, file_stem, original_name, safe_stem
from worker.core.words import FileFormat, WeightDtype


@pytest.mark.parametrize(
    ("file_format", "dtype", "name"),
    [
        ("kohya", "fp16", "chalk-v1.safetensors"),
        ("peft", "fp16", "chalk-v1-peft.safetensors"),
        ("kohya", "bf16", "chalk-v1-bf16.safetensors"),
        ("bundle", "fp16", "chalk-v1.zip"),
    ],
)
def test_no_two_downloads_have_one_name(file_format: str, dtype: str, name: str) -> None:
    assert file_name("chalk", 1, FileFormat(file_format), WeightDtype(dtype)) == name


def test_a_file_with_tags_says_so() -> None:
    assert file_name("chalk", 1, with_tags=True) == "chalk-v1-tags.safetensors"


def test_the_usual_download_is_named_by_its_stem() -> None:
    assert file_name("chalk", 2) == f"{file_stem('chalk', 2)}.safetensors" == "chalk-v2.safetensors"
    assert file_name("chalk") == f"{file_stem('chalk')}.safetensors" == "chalk.safetensors"
    assert original_name("chalk", 2) == "chalk-v2-original.safetensors"


def test_a_checkpoint_is_named_by_its_step() -> None:
    assert file_name("chalk-run-3", 150, is_step=True) == "chalk-run-3-step150.safetensors"
    bundle = file_name("chalk-run-3", 150, FileFormat.BUNDLE, WeightDtype.BF16, is_step=True)
    assert bundle == "chalk-run-3-step150-bf16.zip"


def test_a_stem_is_safe_for_every_program() -> None:
    assert safe_stem("my chalk (final)!") == "my-chalk-final"
    assert safe_stem("…") == "adapter"
