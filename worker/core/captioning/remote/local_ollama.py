"""An Ollama server on this machine, and its models that see images; no image is sent."""

from __future__ import annotations

import time
from typing import Any, NoReturn

from worker.core.captioning.interface import ImageNotCaptioned, ProviderGone
from worker.core.captioning.remote.addresses import below
from worker.core.captioning.remote.requests import Server, TimeLimits, ask

FAILURES = (ImageNotCaptioned, ProviderGone, LookupError, TypeError)


def models_that_see(address: str, seconds: float) -> tuple[str, ...] | None:
    """The models of a server that see images, by name; None if no Ollama answers in this time.

    Models that it does not describe in time are left out.
    """
    end = time.monotonic() + seconds
    try:
        models = list(_ask(address, "/api/tags", None, end)["models"])
    except FAILURES:
        return None
    return tuple(str(one["name"]) for one in models if _sees(address, one, end))


def _sees(address: str, model: Any, end: float) -> bool:
    try:
        # newer servers list it, others describe one model at a time
        if "capabilities" not in model:
            model = _ask(address, "/api/show", {"model": model["name"]}, end)
        return "vision" in model["capabilities"]
    except FAILURES:
        return False


def _ask(address: str, path: str, body: dict[str, Any] | None, end: float) -> Any:
    left = end - time.monotonic()
    if left <= 0:
        _give_up(left)
    limits = TimeLimits(connect=left, silence=left, whole=left)
    return ask(Server(address, limits=limits, wait=_give_up), below(address, path), body)


def _give_up(seconds: float) -> NoReturn:
    raise ProviderGone("The server did not answer in time.")
