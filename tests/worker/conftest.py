"""Small random bases, made once for all tests of the worker; nobody writes into them."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def _tokenizers_read_once() -> Iterator[None]:
    """Bases with the same tokenizer files share what was read from them: CLIP's take 0.2 s."""
    module = sys.modules.get("worker.core.bases.folder")
    if module is None:  # no collected test loads a base
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read_tokenizer", _read_once(module.read_tokenizer))
        yield


def _read_once(read: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which remembers by content; one that is in use stays in its thread."""
    remembered = threading.local()

    def read_or_remember(folder: Path, kind: str) -> Any:
        files = sorted(file for file in folder.glob("*") if file.is_file())
        key = tuple((file.name, hashlib.sha256(file.read_bytes()).digest()) for file in files)
        found: dict[Any, Any] = remembered.__dict__
        if key not in found:
            found[key] = read(folder, kind)
        return found[key]

    return read_or_remember


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


@pytest.fixture(scope="session")
def shallow_sd15_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SD 1.5 that has a layer of each type in few blocks."""
    from tests.worker.bases.tiny_models import SHALLOW_SD15, save_sd15

    return save_sd15(tmp_path_factory.mktemp("shallow-sd15"), **SHALLOW_SD15)


@pytest.fixture(scope="session")
def shallow_sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SDXL that has a layer of each type in few blocks."""
    from tests.worker.bases.tiny_models import SHALLOW_SDXL, save_sdxl

    return save_sdxl(tmp_path_factory.mktemp("shallow-sdxl"), **SHALLOW_SDXL)


@pytest.fixture(scope="session")
def zimage_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Z-Image of two layers."""
    from tests.worker.bases.tiny_zimage import save_zimage

    return save_zimage(tmp_path_factory.mktemp("zimage") / "z")


@pytest.fixture(scope="session")
def klein_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FLUX.2 klein in miniature."""
    from tests.worker.bases.tiny_klein import save_klein

    return save_klein(tmp_path_factory.mktemp("klein") / "klein")


@pytest.fixture(scope="session")
def smallest_sd15_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SD 1.5 of two blocks, for what is not about its layers."""
    from tests.worker.bases.tiny_models import save_two_blocks

    return save_two_blocks(tmp_path_factory.mktemp("smallest-sd15"))


@pytest.fixture(scope="session")
def smallest_sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SDXL of two blocks, for what is not about its layers."""
    from tests.worker.bases.tiny_models import save_two_blocks

    return save_two_blocks(tmp_path_factory.mktemp("smallest-sdxl"), is_sdxl=True)
