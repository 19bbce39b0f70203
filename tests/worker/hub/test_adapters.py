"""Adapters on the Hub: fetched, and published with a card, by the Hub's own client."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fake_hub import READ, WRITE, Hub
from worker.core.families.family import BaseFamily
from worker.core.hub.adapters import fetch_adapter, make_card, publish_adapter
from worker.core.hub.errors import Access, HubError, explain_error
from worker.core.hub.messages import PEFT_FILE, ModelCard
from worker.core.hub.models import HubReference
from worker.core.lora_files.metadata import AdapterMetadata

# the client's own upload is written in httpx2's older way
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")

CARD = ModelCard(
    metadata=AdapterMetadata(
        title="Chalk board",
        slug="chalk-board-v2",
        family=BaseFamily.SD1,
        created=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
        resolution=64,
        prediction_type="v_prediction",
        trigger_words=("chalk style",),
        description="Drawn in *chalk*.",
        license="CC-BY-4.0",
        tags=("chalk",),
        usual_weight=0.7,
        images=24,
    ),
    version=2,
    kohya_file="chalk-board.safetensors",
    base_model="acme/tiny",
    rank=8,
    alpha=4.0,
    steps=600,
    trained=123_456,
    pictures=[("images/0.png", 'a fox: "red"\n---\nchalk')],
)


def small_card(title: str, **changes: Any) -> ModelCard:
    """A card of an adapter of which little is known."""
    metadata = AdapterMetadata(
        title=title,
        slug="x-v1",
        family=BaseFamily.SDXL,
        created=CARD.metadata.created,
        **changes,
    )
    return ModelCard(metadata=metadata, version=1, kohya_file="x.safetensors")


def front_matter(text: str) -> dict[str, object]:
    _, matter, _ = text.split("---\n", 2)
    found: dict[str, object] = yaml.safe_load(matter)
    return found


def test_the_card_tells_the_facts_and_how_to_use_it() -> None:
    text = make_card(CARD, "ada/chalk")
    assert front_matter(text) == {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": [
            "text-to-image",
            "lora",
            "diffusers",
            "template:diffusion-lora",
            "stable-diffusion",
            "chalk",
        ],
        "base_model": "acme/tiny",
        "base_model_relation": "adapter",
        "instance_prompt": "chalk style",
        "license": "cc-by-4.0",
        "widget": [{"text": 'a fox: "red" --- chalk', "output": {"url": "images/0.png"}}],
    }
    for words in (
        "# Chalk board\n\nDrawn in *chalk*.\n\n<Gallery />",
        "Write `chalk style` in the prompt.",
        "| Base | acme/tiny (Stable Diffusion 1.x) |",
        "| Rank, alpha | 8, 4 |",
        "| Training images | 24 |",
        "| Prediction | v |",
        "from_pretrained('acme/tiny')",
        "load_lora_weights('ada/chalk', weight_name='pytorch_lora_weights.safetensors'",
        "`<lora:chalk-board:0.7>`",
    ):
        assert words in text


def test_the_lines_to_use_it_are_python() -> None:
    for card in (CARD, small_card("x'\"")):
        lines = make_card(card, "ada/chalk").split("```python\n")[1].split("```")[0]
        compile(lines, "card", "exec")


def test_a_card_of_little_says_little() -> None:
    text = make_card(small_card("Ink | <b>\n# x", license="My own"), "a/b")
    matter = front_matter(text)
    assert (matter["license"], matter["license_name"]) == ("other", "My own")
    assert "base_model" not in matter
    assert "# Ink | <b> # x\n" in text
    assert "No trigger word is needed." in text
    assert "<Gallery" not in text


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The files that are published beside the card."""
    content = {
        "chalk-board.safetensors": b"kohya" * 99,
        PEFT_FILE: b"peft" * 99,
        "images/0.png": b"\x89PNG...",
    }
    found = {}
    for number, (name, text) in enumerate(content.items()):
        found[name] = tmp_path / str(number)
        found[name].write_bytes(text)
    return found


def test_an_adapter_is_published_privately_and_can_be_fetched_again(
    hub: Hub, files: dict[str, Path], tmp_path: Path
) -> None:
    hub.tokens["good"] = WRITE
    access = Access(hub.url, "good")
    done = publish_adapter("chalk", files, CARD, access)
    repo = hub.repos["ada/chalk"]
    assert done == {
        "repo": "ada/chalk",
        "url": f"{hub.url}/ada/chalk",
        "commit": repo.commit,
        "private": True,
    }
    assert repo.private
    assert {name: path.read_bytes() for name, path in files.items()} == {
        name: content for name, content in repo.files.items() if name != "README.md"
    }
    assert repo.files["README.md"].decode() == make_card(CARD, "ada/chalk")
    uploads = [row for row in hub.asked if row.method == "PUT"]
    assert len(uploads) == 3
    assert {row.token for row in uploads} == {None}  # where large files lie, no token belongs
    found = fetch_adapter(HubReference("ada/chalk"), tmp_path / "back", access)
    assert Path(found["path"]).read_bytes() == b"peft" * 99
    assert Path(found["picture"]).read_bytes() == b"\x89PNG..."
    assert found["name"] == "chalk.safetensors"
    assert found["card"] == {"license": "cc-by-4.0", "instance_prompt": "chalk style"}


def test_a_name_that_is_taken_is_refused_unless_it_is_ours(
    hub: Hub, files: dict[str, Path]
) -> None:
    hub.tokens["good"] = WRITE
    access = Access(hub.url, "good")
    repo = hub.add("ada/chalk", {"other.safetensors": b"x", "images/7.png": b"old"})
    with pytest.raises(HubError, match=r"“ada/chalk” already exists at"):
        publish_adapter("ada/chalk", files, CARD, access)
    assert set(repo.files) == {"other.safetensors", "images/7.png"}
    publish_adapter("ada/chalk", files, CARD, access, update=True, private=False)
    assert {"other.safetensors", PEFT_FILE, "images/0.png"} <= set(repo.files)
    assert "images/7.png" not in repo.files
    hub.add(
        "ada/lost", {".gitattributes": b"x"}, private=True
    )  # made by an attempt whose worker was lost
    publish_adapter("ada/lost", files, CARD, access)
    assert PEFT_FILE in hub.repos["ada/lost"].files
    publish_adapter(
        "ada/lost", files, CARD, access
    )  # that attempt got to the end, but nobody heard of it
    del hub.repos["ada/lost"].files[PEFT_FILE]
    with pytest.raises(HubError, match="Choose another name"):
        publish_adapter("ada/lost", files, CARD, access)


@pytest.mark.parametrize("update", [True, False])
def test_what_was_to_be_private_is_not_uploaded_to_a_public_repository(
    hub: Hub, files: dict[str, Path], update: bool
) -> None:
    hub.tokens["good"] = WRITE
    access = Access(hub.url, "good")
    repo = hub.add("ada/chalk", {".gitattributes": b"x"})
    with pytest.raises(HubError, match=r"is public, but “Private” is on") as caught:
        publish_adapter("ada/chalk", files, CARD, access, update=update)
    assert caught.value.code == "hub_public"
    assert f"{hub.url}/ada/chalk/settings" in str(caught.value)
    assert set(repo.files) == {".gitattributes"}
    assert hub.uploaded == {}
    assert not publish_adapter("ada/chalk", files, CARD, access, update=update, private=False)[
        "private"
    ]
    repo.private = True  # its owner hid it: what is told is what it is, not what was asked for
    assert publish_adapter("ada/chalk", files, CARD, access, update=True, private=False)["private"]


def test_publishing_without_permission_is_explained(hub: Hub, files: dict[str, Path]) -> None:
    hub.tokens |= {"reader": READ, "good": WRITE}

    def ask(repo: str, token: str | None) -> str:
        access = Access(hub.url, token)
        with pytest.raises(Exception) as caught:
            publish_adapter(repo, files, CARD, access)
        return str(explain_error(caught.value, repo, access))

    assert "BRUSHWORK_HUB_TOKEN" in ask("chalk", None)
    assert "BRUSHWORK_HUB_TOKEN" in ask("ada/chalk", None)
    assert "does not accept the token" in ask("ada/chalk", "wrong")
    assert "This token has no right to write" in ask("ada/chalk", "reader")
    assert "rights to create a model under acme" in ask("acme/chalk", "good")
    assert hub.repos == {}


def test_an_adapter_is_chosen_by_name_by_convention_or_because_it_is_alone(
    hub: Hub, access: Access, tmp_path: Path
) -> None:
    repo = hub.add("acme/ink", {"ink-1.safetensors": b"1" * 9, "ink-2.safetensors": b"2" * 9})
    with pytest.raises(HubError, match=r"several files: ink-1\.safetensors, ink-2\.safetensors"):
        fetch_adapter(HubReference("acme/ink"), tmp_path / "a", access)
    found = fetch_adapter(
        HubReference("acme/ink", None, "ink-2.safetensors"), tmp_path / "b", access
    )
    assert (found["name"], found["commit"], found["picture"]) == (
        "ink-2.safetensors",
        repo.commit,
        None,
    )
    repo.files[PEFT_FILE] = b"3" * 9
    found = fetch_adapter(HubReference("acme/ink"), tmp_path / "c", access)
    assert (Path(found["path"]).read_bytes(), found["name"]) == (b"3" * 9, "ink.safetensors")
    for files, reason in (
        ({"model_index.json": b"{}"}, "is a base model, not an adapter"),
        ({"ink.pt": b"x"}, "only PyTorch pickles"),
        ({"README.md": b"x"}, "does not contain an adapter"),
    ):
        hub.add("acme/odd", files)
        with pytest.raises(HubError, match=reason):
            fetch_adapter(HubReference("acme/odd"), tmp_path / "d", access)


def test_facts_leave_out_what_is_not_known() -> None:
    metadata = replace(CARD.metadata, images=None, prediction_type="epsilon")
    text = make_card(replace(CARD, steps=None, metadata=metadata), "a/b")
    assert "Training steps" not in text
    assert "Pictures it learned from" not in text
    assert "| Prediction |" not in text
