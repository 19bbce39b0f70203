"""Small random bases, made once for all tests of the worker; nobody writes into them."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def sd15_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All blocks of an SD 1.5."""
    from tests.worker.bases.tiny_models import save_sd15  # with torch, for those who ask for it

    return save_sd15(tmp_path_factory.mktemp("sd15"))


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All blocks of an SDXL, with fewer layers in the deepest transformers."""
    from tests.worker.bases.tiny_models import save_sdxl

    return save_sdxl(tmp_path_factory.mktemp("sdxl"))
