"""Settings read from a text or an image: ours, A1111's, Civitai's, and what is none."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from app.registry.state import AppState
from tests import fake_workers
from tests.app.playground.test_pages import FRAGMENT, HTML
from tests.app.runs.test_pages import form_of
from worker.core.inference.config import ImageSettings
from worker.core.inference.infotext import ImageParameters, UsedAdapter, make_infotext
from worker.core.words import SamplerName

CIVITAI = (
    "a castle, (stone:1.2)\nby the sea\nNegative prompt: blurry, text\n"
    "Steps: 25, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 123456789, Size: 512x768, "
    'Clip skip: 2, Created Date: 2026-01-01T10:00:00Z, Civitai resources: [{"type":"lora",'
    '"weight":0.7,"modelName":"Ink, Steps: 99"}], Civitai metadata: {}'
)
FORGE = "castle\nSteps: 9, Sampler: Euler a, Schedule type: Automatic, CFG scale: 1, Seed: 5"
OURS = make_infotext(
    ImageParameters(
        ImageSettings(
            prompt="a fox",
            steps=12,
            guidance=2.0,
            seed=7,
            width=128,
            height=128,
            sampler=SamplerName.DPMPP_2M_KARRAS,
        ),
        model="starter",
        adapters=[
            UsedAdapter("chalk-v1", 0.8, 0.8, None, (0.5, 1, -1.25)),
            UsedAdapter("chalk", 0.5, 0.2, None),
        ],
    )
)


def png(text: str) -> bytes:
    info = PngInfo()
    info.add_text("parameters", text, zip=True)
    return encoded("PNG", pnginfo=info)


def encoded(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(text: str, encoding: str) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode(encoding)
    return encoded("JPEG", exif=exif)


def recall(client: TestClient, text: str = "", image: bytes | None = None) -> dict[str, str]:
    """The settings in the address that the browser is sent to."""
    files = {"image": ("a.png", image or b"", "image/png")}
    answer = client.post("/play/recall", data={"infotext": text}, files=files, headers=FRAGMENT)
    assert answer.status_code == 204, answer.text
    query = parse_qs(urlsplit(answer.headers["hx-redirect"]).query)
    return {name: ", ".join(values) for name, values in query.items()}


def test_a_text_of_civitai_is_read(client: TestClient) -> None:
    expected = {
        "prompt": "a castle, (stone:1.2)\nby the sea",
        "negative": "blurry, text",
        "seed": "123456789",
        "sampler": "dpmpp_2m_karras",
        "steps": "25",
        "guidance": "6.5",
        "width": "512",
        "height": "768",
        "clip_skip": "2",
    }
    assert recall(client, CIVITAI) == expected
    for encoding in ("utf-16-be", "utf-16-le"):
        assert recall(client, image=jpeg(CIVITAI, encoding)) == expected
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + CIVITAI.encode()
    assert recall(client, image=encoded("WEBP", exif=exif)) == expected


def test_an_image_of_our_own_brings_its_adapters_back(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    found = recall(client, image=png(OURS))
    assert found["adapter"] == "chalk@1:0.8::0.5 1 -1.25, chalk:0.5:0.2"
    assert found["prompt"] == "a fox"
    assert (found["seed"], found["sampler"]) == ("7", "dpmpp_2m_karras")


def test_a_tag_finds_an_adapter_by_its_name(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state, "Ink Wash")
    found = recall(client, "a fox <lora:Ink Wash:0.8>\nSteps: 9, Sampler: Euler, Seed: 5")
    assert (found["adapter"], found["prompt"]) == ("ink-wash:0.8", "a fox")


def test_what_is_missing_is_said_and_the_rest_can_be_used(client: TestClient) -> None:
    text = FORGE.replace("castle", "castle <lora:gone:1>").replace("Euler a", "UniPC")
    answer = client.post("/play/recall", data={"infotext": text}, headers=FRAGMENT).text
    assert "The adapter &lt;lora:gone:1&gt; is not here." in answer
    assert "The sampler UniPC is not here, so DDIM is chosen." in answer
    assert 'href="/play?prompt=castle&amp;seed=5&amp;steps=9&amp;guidance=1"' in answer
    plain = client.post("/play/recall", data={"infotext": FORGE}, follow_redirects=False)
    assert plain.headers["location"] == (
        "/play?prompt=castle&seed=5&sampler=euler_a&steps=9&guidance=1"
    )


def test_a_value_that_is_no_number_is_left_out(client: TestClient) -> None:
    found = recall(client, "castle\nSteps: many, Seed: -1, CFG scale: 1e99, Size: 5x")
    assert found == {"prompt": "castle", "width": "5"}


@pytest.mark.parametrize(
    ("text", "image", "sentence"),
    [
        ("", None, "There are no settings in this text."),
        ("a castle", None, "There are no settings in this text."),
        ("x" * 60_000, None, "longer than 50,000 characters"),
        ("", b"no image", "This is no PNG, JPEG or WebP image."),
        ("", png("")[:60], "cannot be read"),
        ("", encoded("PNG"), "This image has no settings inside."),
        ("", encoded("JPEG"), "This image has no settings inside."),
        ("", png("x" * 5_000_000), "cannot be read"),
        ("", png("é" * 20_000 + "\nSteps: 5, Seed: 1"), "too long for an address"),
    ],
)
def test_what_is_no_text_with_settings_says_why(
    client: TestClient, text: str, image: bytes | None, sentence: str
) -> None:
    files = {"image": ("a.png", image or b"", "image/png")}
    sent: dict[str, Any] = {"data": {"infotext": text}, "files": files}
    answer = client.post("/play/recall", **sent, headers=FRAGMENT)
    assert (answer.status_code, sentence in answer.text) == (200, True), answer.text
    assert client.post("/play/recall", **sent).status_code == 422


def test_without_scripts_what_is_not_here_is_said_above_the_rest(
    client: TestClient, state: AppState
) -> None:
    fake_workers.adapter(state)
    text = "a fox <lora:gone:1> <lora:chalk:1e9>\nSteps: 9, Sampler: Heun, Seed: 5"
    answer = client.post("/play/recall", data={"infotext": text}, headers=HTML)
    assert answer.status_code == 200
    for sentence in (
        "The adapter &lt;lora:gone:1&gt; is not here.",
        "The sampler Heun is not here, so DDIM is chosen.",
        "The weight is 1e+09; weights from -10 to 10 are accepted.",
    ):
        assert sentence in answer.text
    fields = form_of(answer.text, "play-form")
    assert (fields["prompt"], fields["steps"], fields["seed"]) == ("a fox", "9", "5")
    known = client.post("/play/recall", data={"infotext": FORGE}, follow_redirects=False)
    assert known.status_code == 303


def by_api(client: TestClient, **sent: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/renders/recall", **sent)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_api_answers_the_request_that_can_be_sent(client: TestClient, state: AppState) -> None:
    fake_workers.adapter(state)
    fake_workers.measured_base(state)
    found = by_api(client, files={"image": ("a.png", png(OURS))})
    assert found["missing"] == []
    request = found["request"]
    assert (request["prompt"], request["seed"], request["steps"]) == ("a fox", 7, 12)
    assert [(one["weight"], one["text_encoder_weight"]) for one in request["adapters"]] == [
        (0.8, 0.8),
        (0.5, 0.2),
    ]
    assert client.post("/api/v1/renders", json=request).status_code == 202
    assert client.post("/api/v1/recipes", json={"name": "Fox", "request": request}).is_success


def test_the_api_says_what_is_not_here_and_what_would_be_refused(client: TestClient) -> None:
    text = "castle <lora:gone:1>\nSteps: 900, Sampler: UniPC, Denoising strength: 0.5"
    found = by_api(client, data={"infotext": text})
    gone, sampler, source, steps = found["missing"]
    assert gone == "The adapter <lora:gone:1> is not here."
    assert sampler == "The sampler UniPC is not here, so DDIM is chosen."
    assert source.startswith("It started from another image, which is not here")
    assert "steps" in steps
    assert "steps" in client.post("/api/v1/renders", json=found["request"]).json()["detail"]
    for sent, field in (
        ({"data": {"infotext": "castle"}}, "infotext"),
        ({}, "infotext"),
        ({"files": {"image": ("a.png", b"none")}}, "image"),
    ):
        refused = client.post("/api/v1/renders/recall", **sent)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == field
