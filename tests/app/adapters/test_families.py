"""Pages and tools of adapters by their family: what is offered, what is refused by name."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from app.registry.adapters import service
from app.registry.state import AppState
from app.registry.tables.adapters import Adapter
from app.registry.tables.added_models import BaseModel
from app.registry.tables.jobs import IoJob
from tests import fake_workers


@pytest.fixture
def inked(state: AppState) -> Adapter:
    """An adapter of a Z-Image."""
    with state.database.write() as session:
        row = BaseModel(slug="z", name="Z", source=str(state.settings.data_dir))
        row.status, row.family, row.resolution = "ready", "zimage", 64
        row.fingerprint, row.variant = "f" * 64, "base"
        session.add(row)
        session.flush()
        base = row.key
    made = fake_workers.adapter(state, "Ink")
    with state.database.write() as session:
        adapter = session.get_one(Adapter, made.key)
        adapter.base_family = "zimage"
        version = service.get_version(session, adapter)
        version.base_model_id = base
    return adapter


def test_a_page_names_programs_that_read_the_family(client: TestClient, inked: Adapter) -> None:
    page = client.get("/adapters/ink").text
    assert "ComfyUI, InvokeAI, stable-diffusion.cpp, diffusers" in page
    assert "LoraLoaderModelOnly" in page
    for other in ("strength_clip", "A1111, Forge, SD.Next", "ComfyUI, A1111, Forge, InvokeAI"):
        assert other not in page


def test_a_fusion_is_in_bf16_and_a_folder(
    client: TestClient, state: AppState, inked: Adapter
) -> None:
    form = client.get("/adapters/ink/tools").text.partition('id="tool-output"')[2]
    assert '<option value="bf16" selected>' in form
    assert '"fp16"' not in form
    assert "Single .safetensors file" not in form
    address, body = f"/api/v1/adapters/{inked.key}/fuse", {"name": "Inked"}
    fused = client.post(address, json=body)
    with state.database.read() as session:
        assert session.get_one(IoJob, fused.json()["id"]).args["dtype"] == "bf16"
    for wrong, reason in (({"dtype": "fp16"}, "overflow"), ({"layout": "single"}, "a folder")):
        answer = client.post(address, json=body | wrong)
        (error,) = answer.json()["errors"]
        assert [error["field"]] == list(wrong)
        assert reason in error["detail"]
