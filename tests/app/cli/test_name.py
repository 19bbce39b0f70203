from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import pytest

from app.cli import train
from app.cli.main import build_parser
from app.registry.config import Settings


@pytest.mark.parametrize(("hub", "offline"), [("off", "1"), ("on", None)])
def test_the_eyes_get_all_words_and_no_hub_where_it_is_off(
    hub: Any, offline: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], Mapping[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, command, env: started.append((command, env)))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    words = ["--among", "cat, fox", "one.png", "--help"]
    arguments: Namespace = build_parser().parse_args(["name", *words])
    assert arguments.module == "train"
    train.run(arguments, Settings(hub=hub))
    ((command, environment),) = started
    assert command == [sys.executable, "-m", "worker.core.eyes", "name", *words]
    assert environment.get("HF_HUB_OFFLINE") == offline
