"""A stand-in for servers with vision models: Ollama and OpenAI-compatible ones, sound or broken.

It is a real HTTP server. Its `faults` are taken one for each request to a chat; when none is left,
it answers like a sound server.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from PIL import Image

MODEL = "llava"


@dataclass
class CaptionServer:
    """The requests so far, and the next faults."""

    url: str = ""
    key: str = ""
    answer: Callable[[Image.Image, str], str] = lambda image, prompt: "a fox in the snow"
    faults: list[str] = field(default_factory=list)
    """`500`, `429`, `401`, `html`, `big`, `nonsense`, `cut`, `silent`, `slow`, `empty`, `gzip`,
    `redirect`, `length`, `refusal`, `filter`, `colored`, `no-temperature`, `no-model`."""

    models: dict[str, list[str] | None] = field(default_factory=dict)
    """The capabilities of each model of an Ollama; None: it describes the model on request."""

    requests: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    """Set at the end; what is silent waits for it."""

    asked: threading.Event = field(default_factory=threading.Event)
    """Set by each request."""

    @property
    def prompts(self) -> list[str]:
        return [_read_request(request)[1] for request in self.requests]


def _read_request(body: dict[str, Any]) -> tuple[Image.Image, str]:
    """The image and the prompt of a request in either form."""
    message = body["messages"][0]
    if isinstance(message["content"], str):
        prompt, picture = message["content"], message["images"][0]
    else:
        text, image = message["content"]
        head, _, picture = image["image_url"]["url"].partition(",")
        assert head == "data:image/jpeg;base64"
        prompt = text["text"]
    return Image.open(BytesIO(base64.b64decode(picture))), prompt


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: CaptionServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.state.paths.append(self.path)
        if self.path != "/api/tags":
            self._answer(404, {"error": "not found"})
        elif self.state.faults:
            self._break(self.state.faults.pop(0), {}, is_ollama=True)
        else:
            listed = self.state.models.items()
            models = [{"name": n} | ({"capabilities": c} if c else {}) for n, c in listed]
            self._answer(200, {"models": models})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state = self.state
        state.paths.append(self.path)
        state.keys.append(self.headers.get("Authorization"))
        if self.path == "/api/show":
            sees = "blind" not in body["model"]
            self._answer(200, {"capabilities": ["completion", *(["vision"] if sees else [])]})
            return
        is_ollama = self.path == "/api/chat"
        if not is_ollama and self.path != "/v1/chat/completions":
            self._answer(404, {"error": {"message": "no such path"}})
            return
        if state.key and self.headers.get("Authorization") != f"Bearer {state.key}":
            self._answer(401, {"error": {"message": "Incorrect API key"}})
            return
        state.requests.append(body)
        state.asked.set()
        fault = state.faults.pop(0) if state.faults else ""
        if fault:
            with suppress(OSError):  # a client that gave up
                self._break(fault, body, is_ollama=is_ollama)
            return
        self._chat(is_ollama, state.answer(*_read_request(body)))

    def _chat(self, is_ollama: bool, said: str, *, ended: str = "stop", refusal: str = "") -> None:
        if is_ollama:
            message = {"role": "assistant", "content": said}
            self._answer(200, {"model": MODEL, "message": message, "done_reason": ended})
            return
        message = {"role": "assistant", "content": said or None}
        if refusal:
            message["refusal"] = refusal
        self._answer(200, {"choices": [{"message": message, "finish_reason": ended}]})

    def _break(self, fault: str, body: dict[str, Any], *, is_ollama: bool) -> None:
        if fault.isdigit():
            after = {"Retry-After": "7"} if fault == "429" else {}
            self._answer(int(fault), {"error": {"message": "overloaded"}}, after)
        elif fault == "html":
            self._send(200, b"<!doctype html><title>Login</title>", {"Content-Type": "text/html"})
        elif fault == "big":
            self._send(200, b'{"filler": "' + b"x" * 10_000_000 + b'"}')
        elif fault == "nonsense":
            self._send(200, b'{"choices": [{"message": 7')
        elif fault == "other":
            self._send(200, b'["no", "chat"]')
        elif fault == "cut":
            self._send(200, b'{"choices": [', {"Content-Length": "5000"})
            self.close_connection = True
        elif fault == "silent":
            self.state.released.wait(60)
            self.close_connection = True
        elif fault == "slow":
            self._trickle()
        elif fault == "gzip":
            self._send(200, b"\x1f\x8b", {"Content-Encoding": "gzip"})
        elif fault == "redirect":
            self._send(302, b"", {"Location": "http://169.254.169.254/"})
        elif fault == "empty":
            self._chat(is_ollama, "")
        elif fault == "refusal":
            self._chat(is_ollama, "", refusal="I cannot describe this.")
        elif fault == "filter":
            self._chat(is_ollama, "", ended="content_filter")
        elif fault == "colored":
            self._answer(400, {"error": {"message": "\x1b[31mno memory\x1b[0m left"}})
        elif fault == "length":
            self._chat(is_ollama, "A fox sits. It looks at the", ended="length")
        elif fault == "no-temperature":
            self._answer(400, {"error": {"message": "Unsupported value: 'temperature'"}})
        elif fault == "no-model":
            self._answer(404, {"error": f"model '{body['model']}' not found"})
        else:
            raise AssertionError(fault)

    def _trickle(self) -> None:
        """A byte at a time, for ever."""
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        while not self.state.released.wait(0.02):
            self.wfile.write(b" ")
            self.wfile.flush()

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        sent = {"Content-Type": "application/json", "Content-Length": str(len(content))}
        self.send_response(status)
        for name, value in (sent | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):  # a client that has read enough
            self.wfile.write(content)


@contextmanager
def caption_server() -> Iterator[CaptionServer]:
    """A running server."""
    state = CaptionServer()
    handler = type("Handler", (_Handler,), {"state": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        state.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            state.released.set()
            server.shutdown()
            thread.join()
