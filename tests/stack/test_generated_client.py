"""A Python client generated from the OpenAPI document trains, watches, renders and downloads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.web.openapi import operations
from tests.stack.conftest import Stack

CONFIG = Path(__file__).parents[2] / "clients" / "openapi-python-client.yaml"
PACKAGE = "generated_brushwork"
PATIENCE_SECONDS = 300.0


@pytest.fixture(scope="module")
def document(stack: Stack) -> dict[str, Any]:
    with stack.client() as client:
        found: dict[str, Any] = client.get("/openapi.json").json()
    return found


@pytest.fixture(scope="module")
def package(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The generated package, which can be imported; the generator has to warn of nothing."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(document))
    generate = [sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"]
    options = {
        "--path": str(folder / "openapi.json"),
        "--config": str(CONFIG),
        "--meta": "none",
        "--output-path": str(folder / PACKAGE),
    }
    done = subprocess.run(
        [*generate, *(word for option in options.items() for word in option)],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder / PACKAGE


@pytest.fixture
def client(package: Path, stack: Stack) -> Iterator[Any]:
    made = import_module(f"{PACKAGE}.client").Client
    with made(base_url=stack.url, timeout=httpx.Timeout(PATIENCE_SECONDS)) as opened:
        yield opened


def call(client: Any, operation: str, *ids: Any, **given: Any) -> Any:
    """What an operation such as `runs.create_run` answers."""
    answer = import_module(f"{PACKAGE}.api.{operation}").sync_detailed(*ids, client=client, **given)
    assert answer.status_code < 300, answer.content
    return answer.parsed


def ended(look: Callable[[], Any]) -> Any:
    """A job once it has succeeded."""
    until = time.monotonic() + PATIENCE_SECONDS
    while (job := look()).status not in ("succeeded", "failed", "canceled"):
        assert time.monotonic() < until, job
        time.sleep(0.2)
    assert job.status == "succeeded", job
    return job


def test_every_operation_becomes_a_function(package: Path, document: dict[str, Any]) -> None:
    found = {path.stem.replace("_", "").lower() for path in package.glob("api/*/*.py")}
    wanted = {operation["operationId"].lower() for _, _, operation in operations(document)}
    assert found - {"init"} == wanted


def test_it_trains_watches_renders_and_downloads(client: Any) -> None:
    models = import_module(f"{PACKAGE}.models")
    dataset = call(
        client, "datasets.add_example", body=models.ExampleIn(models.ExampleInStyle.LINOCUT)
    )
    config = models.TrainConfig(steps=4, resolution=64, batch_size=1, sample_prompts=[])
    wanted = models.RunIn(dataset_id=dataset.id, config=config, name="By a client")
    key = str(uuid.uuid4())
    created, again = (
        call(client, "runs.create_run", body=wanted, idempotency_key=key) for _ in range(2)
    )
    assert again.id == created.id
    run = ended(lambda: call(client, "runs.get_run", created.id))
    assert (run.step, run.total_steps) == (4, 4)
    assert call(client, "runs.get_run_metrics", run.id).last_step == 4

    used = models.WeightedAdapter(id=run.adapter_id, weight=0.8)
    request = models.RenderIn(prompt="a castle", seed=7, steps=4, adapters=[used])
    asked = call(client, "renders.create_render", body=request)
    render = ended(lambda: call(client, "renders.get_render", asked.id))
    image = client.get_httpx_client().get(render.images[0].url)
    assert image.content.startswith(b"\x89PNG")

    recipe = call(client, "recipes.create_recipe", body=models.RecipeIn("Client", request))
    cached = call(client, "renders.create_render", body=recipe.request)
    assert cached.images[0].url == render.images[0].url
    file = call(client, "files.download_adapter", run.adapter_id)
    assert len(file.payload.read()) > 10_000


def test_an_error_is_a_problem(client: Any) -> None:
    models = import_module(f"{PACKAGE}.models")
    answer = import_module(f"{PACKAGE}.api.runs.get_run").sync(2**30, client=client)
    assert isinstance(answer, models.Problem)
    assert answer.status == 404
