"""Captions from any server with OpenAI's chat completions: vLLM, llama.cpp, LM Studio, OpenAI …"""

from __future__ import annotations

from typing import Any

from PIL import Image

from worker.core.captioning.answers import caption_of_answer
from worker.core.captioning.interface import CaptionAnswer, ImageNotCaptioned
from worker.core.captioning.refusals import refused
from worker.core.captioning.remote.addresses import below
from worker.core.captioning.remote.chats import jpeg_base64, read_caption
from worker.core.captioning.remote.requests import BadRequest, Server, ask

MAX_TOKENS = 400
NO_CAPTION = "{host} answered without a caption. Check that “{model}” is a model that sees images."
FILTERED = "{host} gave no caption: its content filter stopped the answer. Choose another model."
OTHER_NAMES = {"max_tokens": "max_completion_tokens", "temperature": ""}
"""Parameters that some models refuse, and the name that those want instead; "": none."""


class OpenAiCaptioner:
    """A vision model behind `/v1/chat/completions`."""

    def __init__(self, server: Server, model: str) -> None:
        self._server = server
        self._model = model
        self._url = chat_address(server.address)
        # the likeliest words each time, so that a preview says what the job will
        self._options: dict[str, Any] = {"max_tokens": MAX_TOKENS, "temperature": 0}

    @property
    def title(self) -> str:
        return f"{self._model} at {self._server.host}"

    def caption(self, image: Image.Image, prompt: str) -> CaptionAnswer:
        picture = f"data:image/jpeg;base64,{jpeg_base64(image)}"
        content = [
            {"type": "text", "text": prompt},
            {"type": "image_url", "image_url": {"url": picture}},
        ]
        body = {"model": self._model, "messages": [{"role": "user", "content": content}]}
        return self._read(self._ask(body | {"stream": False}))

    def _ask(self, body: dict[str, Any]) -> Any:
        """The answer; a parameter that the model refuses is renamed or left out from then on."""
        while True:
            try:
                return ask(self._server, self._url, body | self._options)
            except BadRequest as refused:
                named = [name for name in OTHER_NAMES if name in self._options]
                unwanted = next((name for name in named if name in refused.said), None)
                if unwanted is None:
                    raise
                value = self._options.pop(unwanted)
                if other := OTHER_NAMES[unwanted]:
                    self._options[other] = value

    def _read(self, answer: Any) -> CaptionAnswer:
        nothing = NO_CAPTION.format(host=self._server.host, model=self._model)
        try:
            choice = answer["choices"][0]
            message = choice["message"]
            said = message.get("content")
        except (LookupError, TypeError, AttributeError):
            raise ImageNotCaptioned(nothing) from None
        if isinstance(said, list):  # parts of a message
            parts = (part.get("text") for part in said if isinstance(part, dict))
            said = " ".join(text for text in parts if isinstance(text, str))
        ended = choice.get("finish_reason")
        if not said and isinstance(refusal := message.get("refusal"), str):
            raise refused(self._model, caption_of_answer(refusal))
        if ended == "content_filter":
            raise ImageNotCaptioned(FILTERED.format(host=self._server.host))
        return read_caption(self._model, said, nothing, is_cut_off=ended == "length")


def chat_address(address: str) -> str:
    """Where chat completions are asked for: below “…/v1”, which a bare host has too."""
    path = address.split("://", 1)[-1].strip().rstrip("/").partition("/")[2]
    if path.endswith("chat/completions"):
        return address.strip().rstrip("/")
    return below(address if path else below(address, "/v1"), "/chat/completions")
