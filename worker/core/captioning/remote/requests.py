"""Requests to servers that may be slow, broken or not what was expected.

An answer is read within limits of size and time, as it is sent: never unpacked, never from an
address that the server redirects to.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from worker.core.captioning.answers import ESCAPES
from worker.core.captioning.interface import ImageNotCaptioned, ProviderGone
from worker.core.captioning.remote.addresses import host_and_port, is_this_machine
from worker.core.wording import duration

MAX_ANSWER_BYTES = 1_000_000
MAX_QUOTED = 200  # characters of an error that the server reports
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""

WAITS = (1.0, 3.0, 9.0)  # seconds before each further try
MAX_WAIT = 30.0  # that a server may ask for with Retry-After
REFUSED_KEY = (
    "{host} does not accept the key (status {status}). Check BRUSHWORK_OPENAI_KEY, then start "
    "again."
)
NO_KEY = (
    "{host} wants a key (status {status}), and this address is sent none: BRUSHWORK_OPENAI_KEY is "
    "sent to BRUSHWORK_OPENAI_URL alone. Set both, then start again."
)


@dataclass(frozen=True)
class TimeLimits:
    """The time that a server may take, in seconds."""

    connect: float = 10.0
    silence: float = 60.0
    """Without a byte."""

    whole: float = 180.0
    """For a whole answer, however steadily it comes."""


@dataclass(frozen=True)
class Server:
    """A server, and how to ask it.

    `wait` is called before another try and may raise, such as for a job that was canceled.
    """

    address: str
    key: str = field(default="", repr=False)
    limits: TimeLimits = TimeLimits()
    wait: Callable[[float], None] = time.sleep

    @property
    def host(self) -> str:
        """“host:port”."""
        return host_and_port(self.address)


class _TryAgain(Exception):
    """The request may succeed if it is sent again; the message says why it did not."""

    def __init__(self, error: ImageNotCaptioned | ProviderGone, after: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after


class BadRequest(ImageNotCaptioned):
    """The server does not take this request."""


class NotThere(ProviderGone):
    """The server knows no such path or model."""


class KeyRefused(ProviderGone):
    """The server wants a key, or another one; `status` is 401 or 403."""

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


def ask(server: Server, url: str, body: Mapping[str, Any] | None = None) -> Any:
    """The JSON that the server answers to a POST of this JSON, or to a GET without one.

    A server that is busy, breaks off or cannot be reached is asked again. Raises ImageNotCaptioned,
    BadRequest, ProviderGone, NotThere and KeyRefused.
    """
    for pause in (*WAITS, None):
        try:
            return _ask_once(server, url, body)
        except _TryAgain as failed:
            if pause is None:
                raise failed.error from failed
            server.wait(min(MAX_WAIT, pause if failed.after is None else failed.after))
    raise AssertionError("The last try returns or raises.")


def _ask_once(server: Server, url: str, body: Mapping[str, Any] | None) -> Any:
    limits = server.limits
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if server.key:
        headers["Authorization"] = f"Bearer {server.key}"
    timeout = httpx.Timeout(limits.silence, connect=limits.connect)
    try:
        with (
            # `trust_env`: the proxies of the environment, which lead to no server of this machine
            httpx.Client(timeout=timeout, trust_env=not is_this_machine(url)) as client,
            client.stream("GET" if body is None else "POST", url, json=body, headers=headers) as r,
        ):
            content = _read_limited(server, r)
            return _checked(server, r, content)
    except httpx.ConnectError as error:
        raise _TryAgain(
            ProviderGone(
                f"{server.host} cannot be reached: {_first_line(error)}. "
                "Start the server, or correct its address."
            )
        ) from error
    except httpx.ConnectTimeout as error:
        raise _TryAgain(
            ProviderGone(
                f"{server.host} did not accept a connection within {duration(limits.connect)}. "
                "Start the server, or correct its address."
            )
        ) from error
    except httpx.TimeoutException as error:
        raise ImageNotCaptioned(
            f"{server.host} sent nothing for {duration(limits.silence)}. It may still load the "
            "model, or be too slow for it; choose a smaller model or try again."
        ) from error
    except httpx.HTTPError as error:
        raise _TryAgain(
            ImageNotCaptioned(f"{server.host} broke off its answer. Look at the server's log.")
        ) from error


def _read_limited(server: Server, response: httpx.Response) -> bytes:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ImageNotCaptioned(f"{server.host} sent a compressed answer, which was not asked for.")
    content = b""
    started = time.monotonic()
    for part in response.iter_raw():
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            raise ImageNotCaptioned(
                f"{server.host} sent more than {MAX_ANSWER_BYTES // 1_000_000} MB, which is no "
                "caption. Check its address."
            )
        if time.monotonic() - started > server.limits.whole:
            raise ImageNotCaptioned(
                f"{server.host} took longer than {duration(server.limits.whole)} for one answer. "
                "Choose a smaller model."
            )
    return content


def _checked(server: Server, response: httpx.Response, content: bytes) -> Any:
    status = response.status_code
    said = _reported(content)
    if server.key:
        said = said.replace(server.key, "…")
    quoted = f": “{said}”" if said else ""
    if status in BUSY:
        sentence = f"{server.host} answered with status {status}{quoted}. Try again later."
        raise _TryAgain(ImageNotCaptioned(sentence), _retry_after(response))
    if status in (401, 403):
        sentence = (REFUSED_KEY if server.key else NO_KEY).format(host=server.host, status=status)
        raise KeyRefused(sentence, status)
    if status == 404:
        sentence = f"{server.host} has no such model or path{quoted}. Check both."
        raise NotThere(sentence, said)
    if 300 <= status < 400:
        raise ProviderGone(
            f"{server.host} sends requests on to another address, which is not followed. Set the "
            "address that it names."
        )
    if status >= 400:
        sentence = f"{server.host} refused the request with status {status}{quoted}."
        raise BadRequest(sentence, said)
    if content.lstrip()[:1] == b"<":
        raise ImageNotCaptioned(
            f"{server.host} answered with a web page instead of JSON. Check the path of its "
            "address."
        )
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _TryAgain(
            ImageNotCaptioned(
                f"{server.host} answered with something that is not JSON, or cut it off. Look at "
                "the server's log."
            )
        ) from None


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers.get("Retry-After", "")))
    except ValueError:  # none, or a date
        return None


def _reported(content: bytes) -> str:
    """The error that the JSON of an answer reports, shortened; "" if it reports none.

    Ollama: `{"error": "…"}`. OpenAI: `{"error": {"message": "…"}}`.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    error = found.get("error") if isinstance(found, dict) else None
    if isinstance(error, dict):
        error = error.get("message")
    if not isinstance(error, str):
        return ""
    shown = " ".join("".join(c if c.isprintable() else " " for c in ESCAPES.sub("", error)).split())
    return shown if len(shown) <= MAX_QUOTED else shown[: MAX_QUOTED - 1] + "…"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
