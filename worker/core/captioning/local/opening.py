"""Opens the provider that was asked for; torch is loaded only for models on this machine."""

from __future__ import annotations

from pathlib import Path

from worker.core.captioning.interface import Captioner, CaptionerHere
from worker.core.captioning.local.families import CaptionFamily
from worker.core.captioning.local.inspect import inspect_caption_model
from worker.core.captioning.remote.ollama import OllamaCaptioner
from worker.core.captioning.remote.openai_chat import OpenAiCaptioner
from worker.core.captioning.remote.requests import Server
from worker.core.captioning.words import ProviderKind
from worker.core.lean_imports import lean_imports


def open_server(kind: ProviderKind, server: Server, model: str) -> Captioner:
    """The vision model of a server."""
    return (OllamaCaptioner if kind is ProviderKind.OLLAMA else OpenAiCaptioner)(server, model)


def open_builtin() -> Captioner:
    """The embedded eyes. Raises EyesError."""
    from worker.core.captioning.builtin import BuiltinCaptioner

    return BuiltinCaptioner()


def open_local(folder: Path, *, title: str, device: str) -> CaptionerHere:
    """The model in a folder. Raises UnusableModel, and ProviderGone without enough memory."""
    family = inspect_caption_model(folder).family
    if family is CaptionFamily.WD_TAGGER:
        from worker.core.captioning.local.wd_tagger import load_wd_tagger

        return load_wd_tagger(folder, title=title, device=device)
    with lean_imports(device):
        from worker.core.captioning.local.vision_language import load_vision_language
    return load_vision_language(folder, family, title=title, device=device)
