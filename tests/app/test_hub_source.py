"""Names on the Hub, as people write or paste them."""

from __future__ import annotations

import pytest

from app.registry.hub_source import HubSource, read_source

SD = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (SD, HubSource(SD)),
        (f" {SD} ", HubSource(SD)),
        (f"hf://{SD}", HubSource(SD)),
        (f"{SD}@fp16", HubSource(SD, "fp16")),
        ("a/b@v1/sub/x y.safetensors", HubSource("a/b", "v1", "sub/x y.safetensors")),
        ("a/b/x.safetensors", HubSource("a/b", None, "x.safetensors")),
        (f"https://huggingface.co/{SD}", HubSource(SD)),
        (f"https://huggingface.co/{SD}/tree/main", HubSource(SD)),
        (f"https://huggingface.co/{SD}/tree/v2?x=1", HubSource(SD, "v2")),
        (
            "https://huggingface.co/a/b/blob/main/x%20y.safetensors",
            HubSource("a/b", None, "x y.safetensors"),
        ),
        (
            "https://hf.co/a/b/resolve/abc/c/x.safetensors?download=true",
            HubSource("a/b", "abc", "c/x.safetensors"),
        ),
    ],
)
def test_a_name_is_understood(written: str, meant: HubSource) -> None:
    found = read_source(written)
    assert found == meant
    assert read_source(meant.uri) == meant


@pytest.mark.parametrize(
    "written",
    [
        "",
        "starter",
        "/models/sd",
        "./models/sd",
        "~/models/sd",
        "C:\\models\\sd",
        "a/../b",
        "a/b/../../etc/passwd",
        "a/b@../x",
        "a//b",
        "a--b/c",
        "-a/b",
        "a/b/c\nd",
        "a/" + "b" * 100,
        "https://example.org/a/b",
        "https://huggingface.co/a",
    ],
)
def test_anything_else_is_no_name(written: str) -> None:
    assert read_source(written) is None


def test_a_name_is_short_where_it_is_shown() -> None:
    assert HubSource("a/b").name == "b"
    assert HubSource("a/b", "v1", "c/my style.safetensors").name == "my style"
    assert str(HubSource("a/b", "v1", "c/x.safetensors")) == "a/b@v1/c/x.safetensors"
