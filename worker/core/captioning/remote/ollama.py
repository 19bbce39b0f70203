"""Captions from an Ollama server, by its own chat interface."""

from __future__ import annotations

from typing import Any

from PIL import Image

from worker.core.captioning.interface import CaptionAnswer, ProviderGone
from worker.core.captioning.remote.addresses import below
from worker.core.captioning.remote.chats import jpeg_base64, read_caption
from worker.core.captioning.remote.requests import KeyRefused, NotThere, Server, ask

MAX_TOKENS = 400
KEEP_LOADED = "5m"  # between two images
NO_CAPTION = "Ollama answered without a caption. Check that “{model}” is a model that sees images."
NO_MODEL = "{host} has no model “{model}”. Get it with `ollama pull {model}`, or choose another."

NO_KEY = (
    "{host} wants a key (status {status}), and Ollama servers are sent no key. Check "
    "BRUSHWORK_OLLAMA_URL, or choose the OpenAI-compatible server, which has a key."
)


class OllamaCaptioner:
    """A vision model behind `/api/chat`."""

    def __init__(self, server: Server, model: str) -> None:
        self._server = server
        self._model = model
        self._url = below(server.address, "/api/chat")

    @property
    def title(self) -> str:
        return f"Ollama {self._model}"

    def caption(self, image: Image.Image, prompt: str) -> CaptionAnswer:
        message = {"role": "user", "content": prompt, "images": [jpeg_base64(image)]}
        body = {
            "model": self._model,
            "messages": [message],
            "stream": False,
            "keep_alive": KEEP_LOADED,
            # the likeliest words each time, so that a preview says what the job will
            "options": {"temperature": 0, "num_predict": MAX_TOKENS},
        }
        try:
            answer = ask(self._server, self._url, body)
        except NotThere as missing:
            if "model" not in missing.said:
                raise
            sentence = NO_MODEL.format(host=self._server.host, model=self._model)
            raise ProviderGone(sentence) from missing
        except KeyRefused as denied:
            sentence = NO_KEY.format(host=self._server.host, status=denied.status)
            raise ProviderGone(sentence) from denied
        return self._read(answer)

    def _read(self, answer: Any) -> CaptionAnswer:
        message = answer.get("message") if isinstance(answer, dict) else None
        said = message.get("content") if isinstance(message, dict) else None
        nothing = NO_CAPTION.format(model=self._model)
        is_cut_off = isinstance(answer, dict) and answer.get("done_reason") == "length"
        return read_caption(self._model, said, nothing, is_cut_off=is_cut_off)
