"""The closed sets that forms, files, and the command line share."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum

import pytest

from app.cli.main import build_parser
from app.registry.job_kinds.states import Queue
from worker.core.torch_dtypes import TORCH_DTYPES
from worker.core.training.config import Precision
from worker.core.words import (
    LORA_FORMATS,
    FileFormat,
    FusedDtype,
    FuseLayout,
    MergeMethod,
    SamplerName,
    WeightDtype,
    values,
)


@pytest.mark.parametrize(
    "words", [FileFormat, WeightDtype, FusedDtype, MergeMethod, FuseLayout, SamplerName]
)
def test_every_word_has_a_label_of_its_own(words: type[StrEnum]) -> None:
    labels = [word.label for word in words]  # type: ignore[attr-defined]
    assert all(labels)
    assert len(set(labels)) == len(labels)


def test_every_number_type_is_one_of_torch() -> None:
    assert {*WeightDtype} == {*TORCH_DTYPES}
    assert {*FusedDtype} == {*TORCH_DTYPES, FusedDtype.KEEP}
    assert {*Precision} == {*TORCH_DTYPES, Precision.AUTO}


def test_a_lora_format_is_one_file() -> None:
    assert {form.suffix for form in LORA_FORMATS} == {".safetensors"}
    assert {*FileFormat} - {*LORA_FORMATS} == {FileFormat.BUNDLE}


def test_the_command_line_takes_every_word() -> None:
    parser = build_parser()
    for file_format in values(FileFormat):
        parser.parse_args(["export", "ink", "--format", file_format])
    for dtype in values(WeightDtype):
        parser.parse_args(["export", "ink", "--dtype", dtype])
    for queue in values(Queue):
        parser.parse_args(["worker", "--queue", queue])
    for command in (["convert", "in", "out"], ["merge", "a", "b", "--out", "c"]):
        for file_format in values(LORA_FORMATS):
            parser.parse_args(["adapters", *command, "--format", file_format])
        with pytest.raises(SystemExit):
            parser.parse_args(["adapters", *command, "--format", "bundle"])
    fuse = ["adapters", "fuse", "--base", "starter", "--adapter", "a", "out"]
    for dtype in values(FusedDtype):
        parser.parse_args([*fuse, "--dtype", dtype])


def test_the_words_and_the_help_load_little() -> None:
    program = (
        "import sys, app.cli.main, worker.core.words\n"
        "app.cli.main.build_parser().format_help()\n"
        "print({'torch', 'sqlalchemy', 'celery', 'pydantic', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
