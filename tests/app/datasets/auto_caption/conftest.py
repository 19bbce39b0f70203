from __future__ import annotations

from pathlib import Path

import pytest

from app.registry.config import Settings


@pytest.fixture
def caption_settings(tmp_path: Path) -> Settings:
    """An Ollama server, a server with a key, and a host that people may choose."""
    return Settings(
        _env_file=None,
        data_dir=tmp_path,
        ollama_url="http://127.0.0.1:11434",
        ollama_model="llava",
        openai_url="http://gpu.lan:8000/v1",
        openai_key="sk-secret",
        caption_hosts="other.lan",
    )
