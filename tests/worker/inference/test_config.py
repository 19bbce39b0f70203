"""A render request is checked before anything is loaded."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from worker.core.inference.config import AdapterWeight, RenderConfig


def test_defaults_draw_one_picture_of_the_bases_own_size() -> None:
    config = RenderConfig(prompt="castle")
    assert (config.count, config.width, config.height, config.steps) == (1, None, None, 20)


@pytest.mark.parametrize(
    "changes",
    [
        {"prompt": ""},
        {"prompt": "x" * 2001},
        {"steps": 0},
        {"steps": 151},
        {"guidance": float("nan")},
        {"guidance": 31},
        {"width": 100},
        {"height": 4096},
        {"count": 9},
        {"seed": -1},
        {"sampler": "magic"},
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RenderConfig(**({"prompt": "castle"} | changes))


@pytest.mark.parametrize("weight", [10.1, -10.1, float("nan"), float("inf")])
def test_adapter_weights_have_bounds(weight: float) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(AdapterWeight).validate_python(weight)


def test_the_config_imports_without_torch() -> None:
    code = "import sys, worker.core.inference.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
