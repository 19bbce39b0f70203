"""Captions from servers, against a stand-in that is slow, failing, cut off or not what it seems."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from tests.caption_servers import CaptionServer
from worker.core.captioning.interface import Captioner, ImageNotCaptioned, ProviderGone
from worker.core.captioning.remote.addresses import BadAddress, host_and_port, is_allowed
from worker.core.captioning.remote.ollama import OllamaCaptioner
from worker.core.captioning.remote.openai_chat import OpenAiCaptioner, chat_address
from worker.core.captioning.remote.requests import WAITS, Server, TimeLimits

SHORT = TimeLimits(connect=5, silence=0.2, whole=0.3)
RED = Image.new("RGBA", (2000, 1000), (255, 0, 0, 255))
Make = Callable[..., Captioner]
MAKERS = [OpenAiCaptioner, OllamaCaptioner]


def asker(make: Make, server: CaptionServer, **options: Any) -> Captioner:
    """A captioner that does not wait between its tries."""
    values = {"limits": TimeLimits(), "wait": lambda seconds: None} | options
    return make(Server(server.url, **values), "llava")


@pytest.fixture(params=MAKERS, ids=["openai", "ollama"])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


def test_the_server_gets_the_prompt_and_a_small_jpeg(make: Make, server: CaptionServer) -> None:
    seen: list[Image.Image] = []

    def answer(image: Image.Image, prompt: str) -> str:
        seen.append(image)
        return f"Caption: “{prompt}: a red sheet.”\n"

    server.answer = answer
    captioner = asker(make, server)
    assert captioner.caption(RED, "Say it").text == "Say it: a red sheet."
    assert (seen[0].format, seen[0].size, server.prompts) == ("JPEG", (1024, 512), ["Say it"])
    assert "llava" in captioner.title


def test_a_key_is_sent_and_shown_nowhere(server: CaptionServer) -> None:
    server.key = "sk-secret"
    address = Server(server.url, key="sk-secret")
    captioner = OpenAiCaptioner(address, "llava")
    assert captioner.caption(RED, "Say it").text
    assert server.keys == ["Bearer sk-secret"]
    assert "sk-secret" not in repr(address) + captioner.title


def test_a_refused_key_ends_the_work(server: CaptionServer) -> None:
    server.key = "sk-secret"
    with pytest.raises(ProviderGone, match=r"the key \(status 401\). Check BRUSHWORK_OPENAI_KEY"):
        asker(OpenAiCaptioner, server, key="other").caption(RED, "Say it")


@pytest.mark.parametrize("status", ["401", "403"])
def test_a_server_that_wants_a_key_names_the_setting_of_its_kind(
    server: CaptionServer, status: str
) -> None:
    server.faults = [status, status]
    with pytest.raises(ProviderGone, match="Ollama servers are sent no key") as refused:
        asker(OllamaCaptioner, server).caption(RED, "Say it")
    assert "BRUSHWORK_OLLAMA_URL" in str(refused.value)
    with pytest.raises(ProviderGone, match="BRUSHWORK_OPENAI_KEY is sent to BRUSHWORK_OPENAI_URL"):
        asker(OpenAiCaptioner, server).caption(RED, "Say it")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("500", "status 500: “overloaded”"),
        ("429", "status 429"),
        ("cut", "broke off its answer"),
        ("nonsense", "not JSON"),
    ],
)
def test_what_may_pass_is_tried_again(
    make: Make, server: CaptionServer, fault: str, sentence: str
) -> None:
    server.faults = [fault]
    assert asker(make, server).caption(RED, "Say it").text
    assert len(server.requests) == 2
    server.faults = [fault] * (1 + len(WAITS))
    with pytest.raises(ImageNotCaptioned, match=sentence):
        asker(make, server).caption(RED, "Say it")
    assert not server.faults


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("html", "answered with a web page"),
        ("big", "more than 1 MB"),
        ("silent", "sent nothing for 0.2 s"),
        ("slow", "took longer than 0.3 s"),
        ("gzip", "compressed"),
        ("other", "without a caption"),
        ("empty", "without a caption"),
        ("400", "refused the request with status 400: “overloaded”"),
    ],
)
def test_what_stays_broken_is_said_once(
    make: Make, server: CaptionServer, fault: str, sentence: str
) -> None:
    server.faults = [fault]
    limits = SHORT if fault in ("silent", "slow") else TimeLimits()  # else a busy machine is late
    with pytest.raises(ImageNotCaptioned, match=sentence):
        asker(make, server, limits=limits).caption(RED, "Say it")
    assert len(server.requests) == 1


def test_a_server_asks_for_the_time_to_wait(server: CaptionServer) -> None:
    waited: list[float] = []
    server.faults = ["500", "429", "500"]
    asker(OllamaCaptioner, server, wait=waited.append).caption(RED, "Say it")
    assert waited == [WAITS[0], 7.0, WAITS[2]]


def test_a_redirect_is_not_followed(make: Make, server: CaptionServer) -> None:
    server.faults = ["redirect"]
    with pytest.raises(ProviderGone, match="not followed"):
        asker(make, server).caption(RED, "Say it")


def test_a_server_that_is_not_there_ends_the_work(make: Make) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    gone = CaptionServer(url=f"http://127.0.0.1:{port}")
    with pytest.raises(ProviderGone, match=f"127.0.0.1:{port} cannot be reached"):
        asker(make, gone).caption(RED, "Say it")


def test_a_model_that_is_not_there_ends_the_work(server: CaptionServer) -> None:
    server.faults = ["no-model"]
    with pytest.raises(ProviderGone, match="ollama pull llava"):
        asker(OllamaCaptioner, server).caption(RED, "Say it")


def test_an_unfinished_sentence_is_left_out(make: Make, server: CaptionServer) -> None:
    server.faults = ["length"]
    assert asker(make, server).caption(RED, "Say it").text == "A fox sits."


def test_a_refusal_is_quoted(make: Make, server: CaptionServer) -> None:
    server.answer = lambda image, prompt: "I'm sorry, I can't help with that."
    with pytest.raises(ImageNotCaptioned, match="“llava” refused: “I'm sorry, I can't help"):
        asker(make, server).caption(RED, "Say it")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [("refusal", "“llava” refused: “I cannot describe this"), ("filter", "its content filter")],
)
def test_a_refusal_beside_the_text_is_quoted(
    server: CaptionServer, fault: str, sentence: str
) -> None:
    server.faults = [fault]
    with pytest.raises(ImageNotCaptioned, match=sentence):
        asker(OpenAiCaptioner, server).caption(RED, "Say it")


def test_escapes_of_a_terminal_are_not_quoted(make: Make, server: CaptionServer) -> None:
    server.faults = ["colored"]
    with pytest.raises(ImageNotCaptioned, match="status 400: “no memory left”"):
        asker(make, server).caption(RED, "Say it")


def test_a_parameter_that_the_model_refuses_is_left_out(server: CaptionServer) -> None:
    server.faults = ["no-temperature"]
    captioner = asker(OpenAiCaptioner, server)
    captioner.caption(RED, "Say it")
    captioner.caption(RED, "Say it")
    assert ["temperature" in request for request in server.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h/v1/", "http://h/v1/chat/completions"),
        ("https://h/openai/v3", "https://h/openai/v3/chat/completions"),
        ("http://h/v1/chat/completions", "http://h/v1/chat/completions"),
    ],
)
def test_chats_are_below_the_address(address: str, asked: str) -> None:
    assert chat_address(address) == asked


def test_only_hosts_of_the_list_are_allowed() -> None:
    assert host_and_port("HTTP://Gpu.lan/v1") == "gpu.lan:80"
    assert is_allowed("http://gpu.lan:11434", ["gpu.lan"])
    assert is_allowed("http://gpu.lan:11434/api", ["gpu.lan:11434"])
    assert not is_allowed("http://gpu.lan:22", ["gpu.lan:11434"])
    assert not is_allowed("http://gpu.lan.evil:11434", ["gpu.lan"])
    assert is_allowed("http://[::1]:8000", ["[::1]:8000"])


@pytest.mark.parametrize(
    "address",
    ["", "gpu.lan:11434", "file:///etc/passwd", "http://", "http://u:p@h", "http://h:99999",
     "http://h/?x=1", "http://[::1"],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(BadAddress):
        host_and_port(address)
