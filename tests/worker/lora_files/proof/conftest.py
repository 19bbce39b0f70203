"""Components of small pipelines with the real layer names."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tests.worker.bases.tiny_models import SHALLOW_SD15, sd15_unet, sdxl_unet, text_config


@pytest.fixture(scope="session")
def sd15_parts() -> dict[str, Any]:
    return {"unet": sd15_unet(), "text_encoder": CLIPTextModel(text_config())}


@pytest.fixture(scope="session")
def shallow_sd15_parts() -> dict[str, Any]:
    """A layer of each type, for many files."""
    return {"unet": sd15_unet(**SHALLOW_SD15), "text_encoder": CLIPTextModel(text_config())}


@pytest.fixture(scope="session")
def sdxl_parts() -> dict[str, Any]:
    return {
        "unet": sdxl_unet(),
        "text_encoder": CLIPTextModel(text_config()),
        "text_encoder_2": CLIPTextModelWithProjection(text_config(hidden_act="gelu")),
    }
