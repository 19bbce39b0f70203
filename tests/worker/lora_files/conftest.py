"""Small random bases, made once for all tests of this room; nobody writes into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.worker.bases.tiny_models import save_sd15, save_sdxl


@pytest.fixture(scope="session")
def sd15_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sd15(tmp_path_factory.mktemp("sd15"))


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sdxl(tmp_path_factory.mktemp("sdxl"))
