"""Opens the provider that was asked for; torch is loaded only for models on this machine."""

from __future__ import annotations

from worker.core.captioning.interface import Captioner
from worker.core.captioning.remote.ollama import OllamaCaptioner
from worker.core.captioning.remote.openai_chat import OpenAiCaptioner
from worker.core.captioning.remote.requests import Server
from worker.core.captioning.words import ProviderKind


def open_server(kind: ProviderKind, server: Server, model: str) -> Captioner:
    """The vision model of a server."""
    return (OllamaCaptioner if kind is ProviderKind.OLLAMA else OpenAiCaptioner)(server, model)


def open_builtin() -> Captioner:
    """The embedded eyes. Raises EyesError."""
    from worker.core.captioning.builtin import BuiltinCaptioner

    return BuiltinCaptioner()
