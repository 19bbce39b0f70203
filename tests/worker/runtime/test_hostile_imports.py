"""Damaged files sent over HTTP end in an adapter or in a sentence: no error page, no crash."""

from __future__ import annotations

import resource
import struct
import sys

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import save

from app.registry.tables.adapters import AdapterVersion
from app.registry.tables.jobs import IoJob
from tests.conftest import AppMaker
from tests.costs import wide_but
from tests.worker.lora_files.corpus import corpus, mutated
from tests.worker.runtime.job_loops import Registry
from worker.core import starter
from worker.core.lora_files.base_layers import adaptable_shapes
from worker.runtime.io_jobs import IoJobs

FRAGMENT = {"accept": "text/html", "hx-request": "true"}
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
HOST = "http://127.0.0.1"
COPIES = 20  # damaged ones of each file; fewer in `make test`
MEMORY = 300 * 2**20


def files() -> dict[str, bytes]:
    """Files that fit the starter, so that damage reaches every later step; and one of nothing."""
    generator = torch.Generator().manual_seed(3)
    out, given = adaptable_shapes(starter.PATH)[f"unet.{QUERY}"]
    stem = f"lora_unet_{QUERY.replace('.', '_')}"
    forms = {
        "kohya": {"lora_down.weight": (2, given), "lora_up.weight": (out, 2)},
        "loha": {
            "hada_w1_a": (out, 2), "hada_w1_b": (2, given),
            "hada_w2_a": (out, 2), "hada_w2_b": (2, given),
        },
        "diff": {"diff": (out, given)},
        "dora": {
            "lora_down.weight": (2, given), "lora_up.weight": (out, 2), "dora_scale": (out, 1),
        },
    }  # fmt: skip
    made = {
        name: save(
            {
                f"{stem}.{leaf}": torch.randn(shape, generator=generator)
                for leaf, shape in f.items()
            },
            {"modelspec.title": name, "modelspec.trigger_phrase": "a, b"},
        )
        for name, f in forms.items()
    }
    return made | {"other": corpus()["mixed"]}


@pytest.mark.parametrize("copies", wide_but([COPIES // 3, COPIES], COPIES // 3))
def test_no_damaged_file_gets_through_or_breaks_anything(
    copies: int, registry: Registry, make_app: AppMaker
) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    jobs: set[str] = set()
    with TestClient(make_app(registry.settings), base_url=HOST) as client:
        for name, content in files().items():
            for seed in range(copies):
                sent = content if seed == 0 else mutated(content, seed)
                answer = client.post(
                    "/imports",
                    files={"file": (f"{name}{seed}.safetensors", sent)},
                    headers=FRAGMENT,
                )
                assert answer.status_code in (200, 422), answer.text
                assert "not imported" in answer.text or "was uploaded" in answer.text
        orders = registry.rows(IoJob, kind="import_adapter")
        with registry.working(IoJobs(registry.settings, registry.database, registry.store)) as loop:
            loop.wake()
            ended = [registry.until_final(IoJob, job.key) for job in orders]
        for job in ended:
            jobs.add(job.status)
            assert job.attempt == 1
            if job.status == "failed":
                assert job.error_code == "adapter", job.error_trace
                assert job.error.endswith(".")
            assert client.get(f"/imports/{job.key}").status_code == 200
        assert client.get("/adapters").status_code == 200
    assert jobs == {"succeeded", "failed"}
    names = [version.details["imported"] for version in registry.rows(AdapterVersion)]
    assert {"kohya0.safetensors", "loha0.safetensors", "dora0.safetensors"} <= set(names)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < MEMORY


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty"),
        (b"\x80\x02ccollections", "is a pickle"),
        (struct.pack("<Q", 200 * 2**20) + b'{"', "truncated"),
        (files()["kohya"][:-5], "cut off"),
    ],
)
def test_the_api_names_what_is_wrong(
    registry: Registry, make_app: AppMaker, content: bytes, sentence: str
) -> None:
    with (
        TestClient(make_app(registry.settings), base_url=HOST) as client,
        registry.working(IoJobs(registry.settings, registry.database, registry.store)),
    ):
        answer = client.post("/api/v1/adapters/import", files={"file": ("x.safetensors", content)})
    assert answer.status_code == 422
    assert sentence in answer.json()["detail"]
