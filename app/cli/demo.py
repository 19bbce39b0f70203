"""`brushwork demo`: the whole workflow through the REST API of a real stack, with a verdict.

Starts `brushwork serve` on a free port with a temporary data folder, adds an example style,
trains on it, generates a few prompts at three weights, downloads the adapter, and measures whether
the images are in the style; then the next example, if several were asked for.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from app.registry.config import Settings
from app.registry.paths import python_path
from app.registry.wording import size_text
from worker.core.starter.examples import EXAMPLES, Example
from worker.core.training.presets import Preset
from worker.core.words import LORA_FORMATS, FileFormat

READY = re.compile(r"^Brushwork is ready at (http://\S+)$")
WEIGHTS = (0.0, 0.5, 1.0)
SEED = 7
START_SECONDS = 60
TRAIN_SECONDS = 3_600
RENDER_SECONDS = 120
STOP_SECONDS = 120
POLL_SECONDS = 0.2


class DemoError(Exception):
    """A step failed; the message names it and gives the reason."""


class Stopwatch:
    """Durations of the steps, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure and announce one step."""
        print(f"· {name} …", flush=True)
        began = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began

    def table(self) -> str:
        """The steps with their seconds, and the total."""
        rows = {**self.seconds, "total": sum(self.seconds.values())}
        return "\n".join(f"  {name:<44} {value:7.1f} s" for name, value in rows.items())


class Api(httpx.Client):
    """Client for the REST API of a running Brushwork. Error responses raise DemoError."""

    def __init__(self, url: str, **settings: Any) -> None:
        hooks = {"response": [_require_success]}
        super().__init__(base_url=url, timeout=120, event_hooks=hooks, **settings)

    def make(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The JSON response to a POST request with a JSON body."""
        answer: dict[str, Any] = self.post(path, json=body).json()
        return answer

    def wait(
        self, path: str, *, seconds: float, progress: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """Wait until the job at `path` has succeeded, and return it; a ruined run has not."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            job: dict[str, Any] = self.get(path).json()
            if job["status"] == "succeeded":
                if job.get("outcome"):
                    raise DemoError(f"{path} {job['outcome']}: {job['outcome_reason']}")
                return job
            if job["status"] in ("failed", "canceled"):
                raise DemoError(f"{path} {job['status']}: {job['error']}")
            if progress:
                progress(job)
            time.sleep(POLL_SECONDS)
        raise DemoError(f"{path} was not finished after {seconds:.0f} s.")


def _require_success(answer: httpx.Response) -> None:
    if answer.is_error:
        text = answer.read().decode()
        request = answer.request
        raise DemoError(f"{request.method} {request.url.path}: {answer.status_code} {text}")


def run(arguments: Namespace, settings: Settings) -> int:
    """Run the demo; return 0 if every step worked and the images are in their style."""
    out: Path = arguments.out
    if arguments.preset not in set(Preset):
        known = ", ".join(Preset)
        print(f"There is no preset “{arguments.preset}”. Choose one of {known}.", file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    chosen = [EXAMPLES[key] for key in dict.fromkeys(arguments.style or [next(iter(EXAMPLES))])]
    watch = Stopwatch()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="brushwork-demo-") as folder,
            running_stack(Path(folder), watch) as url,
            Api(url) as api,
        ):
            with watch.step("wait for the base model"):
                _await_base(api)
            preset = Preset(arguments.preset)
            passed = [_run_style(api, one, preset, out / one.key, watch) for one in chosen]
    except (DemoError, httpx.HTTPError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    print(f"\nDurations\n{watch.table()}\n\nResults are in {out.absolute()}")
    return 0 if all(passed) else 1


def _run_style(api: Api, example: Example, preset: Preset, out: Path, watch: Stopwatch) -> bool:
    """Everything for one style, with the results in `out`; true if the style was learned."""
    title = example.title
    with watch.step(f"{title}: add the images"):
        dataset = _add_example(api, example)
    with watch.step(f"{title}: train with the preset {preset}"):
        trained = _run_training(api, example, dataset, preset)
    images_by_weight: dict[float, list[Image.Image]] = {}
    for weight in WEIGHTS:
        with watch.step(f"{title}: {len(example.prompts)} images at weight {weight}"):
            images_by_weight[weight] = _render_prompts(
                api, example.prompts, trained["adapter_id"], weight
            )
    out.mkdir(parents=True, exist_ok=True)
    with watch.step(f"{title}: download the adapter"):
        files = [_download_file(api, trained["adapter_id"], name, out) for name in LORA_FORMATS]
    for weight, images in images_by_weight.items():
        for number, image in enumerate(images, start=1):
            image.save(out / f"weight-{weight}-{number}.png")
    _contact_sheet(example, images_by_weight, trained, out / "contact-sheet.png")
    for file in files:
        print(f"  {file}  {size_text(file.stat().st_size)}")
        for line in _proof_lines(file.with_suffix(".proof.json")):
            print(f"    {line}")
    return _judge_style(example, images_by_weight)


@contextmanager
def running_stack(data_dir: Path, watch: Stopwatch) -> Iterator[str]:
    """Start the real stack on this data folder, give its URL, and stop it afterwards."""
    serve = [sys.executable, "-m", "app", "serve", "--port", "0", "--no-browser"]
    # no settings from the environment: the demo must not touch a real database or bucket
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BRUSHWORK_")}
    process = subprocess.Popen(
        [*serve, "--data-dir", str(data_dir / "data")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**kept, "PYTHONPATH": python_path()},
        cwd=data_dir,  # do not read the caller's `.env`
    )
    try:
        with watch.step("start broker, web server and workers"):
            url = _wait_for_address(process)
        yield url
        with watch.step("stop everything"):
            process.terminate()
            process.communicate(timeout=STOP_SECONDS)
    finally:
        process.kill()
        process.communicate()
    if process.returncode:
        raise DemoError(f"`brushwork serve` ended with exit code {process.returncode}.")


def _wait_for_address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        found = READY.match(line.strip())
        if found:
            return found[1]
        said.append(line)
    raise DemoError("`brushwork serve` did not start:\n" + "".join(said))


def _add_example(api: Api, example: Example) -> int:
    """Create the dataset of an example style; return its id."""
    dataset = api.make("/api/v1/examples", {"style": example.key})
    print(f"  {dataset['image_count']} images with captions")
    return int(dataset["id"])


def _await_base(api: Api) -> None:
    """Wait until the embedded base model is ready; an io worker inspects it at first start."""
    deadline = time.monotonic() + START_SECONDS
    while not any(base["status"] == "ready" for base in api.get("/api/v1/base-models").json()):
        if time.monotonic() > deadline:
            raise DemoError("No io worker inspected the embedded base model in time.")
        time.sleep(POLL_SECONDS)


def _run_training(api: Api, example: Example, dataset_id: int, preset: Preset) -> dict[str, Any]:
    """Train, and return the finished run."""
    body = {"dataset_id": dataset_id, "preset": preset, "name": example.title}
    accepted = time.monotonic()
    run_id = api.make("/api/v1/runs", body)["id"]
    first_step: list[float] = []

    def note_first_step(job: dict[str, Any]) -> None:
        if job["step"] and not first_step:
            first_step.append(time.monotonic() - accepted)

    trained = api.wait(f"/api/v1/runs/{run_id}", seconds=TRAIN_SECONDS, progress=note_first_step)
    began = f", the first after {first_step[0]:.1f} s" if first_step else ""
    share = trained["trainable_parameters"] / trained["base_parameters"]
    print(
        f"  {trained['step']} steps{began}; loss {trained['loss']:.3f}; "
        f"{trained['trainable_parameters']:,} trained parameters ({share:.1%} of the base model)"
    )
    return trained


def _render_prompts(
    api: Api, prompts: Sequence[str], adapter_id: int, weight: float
) -> list[Image.Image]:
    """Generate one image per prompt, with the same seeds at every weight."""
    renders = [
        api.make(
            "/api/v1/renders",
            {
                "prompt": prompt,
                "seed": SEED + number,
                "adapters": [{"id": adapter_id, "weight": weight}],
            },
        )
        for number, prompt in enumerate(prompts)
    ]
    images = []
    for render in renders:
        done = api.wait(f"/api/v1/renders/{render['id']}", seconds=RENDER_SECONDS)
        data = api.get(done["images"][0]["url"]).content
        images.append(Image.open(io.BytesIO(data)).convert("RGB"))
    return images


def _download_file(api: Api, adapter_id: int, file_format: FileFormat, out: Path) -> Path:
    """Download the adapter's file in this format, and its proof next to it."""
    place, query = f"/api/v1/adapters/{adapter_id}", {"format": file_format, "dtype": "fp16"}
    path = out / f"{out.name}-{file_format}.safetensors"
    path.write_bytes(api.get(f"{place}/download", params=query).content)
    proof = api.get(f"{place}/proof", params=query).json()
    path.with_suffix(".proof.json").write_text(json.dumps(proof, indent=2) + "\n")
    return path


def _proof_lines(path: Path) -> Iterator[str]:
    """One line per program that the file is made for."""
    proof = json.loads(path.read_text())
    for loader in proof["loaders"]:
        if loader["needed"]:
            yield f"{loader['title']:<21}{loader['sentence']}"
    if (image := proof["drawn"]) is not None:
        yield f"diffusers' image: differs from ours by at most {image['difference']} of 255 levels"


def _contact_sheet(
    example: Example,
    images_by_weight: Mapping[float, list[Image.Image]],
    trained: dict[str, Any],
    path: Path,
) -> None:
    sheet = import_module("worker.core.starter.sheet").contact_sheet(
        [f"weight {weight}" for weight in images_by_weight],
        list(example.prompts),
        list(images_by_weight.values()),
        title=f"{example.title}: {trained['step']} steps on {len(_references(example))} images",
    )
    sheet.save(path)


def _references(example: Example) -> list[Image.Image]:
    rows = (example.folder / "metadata.jsonl").read_text().splitlines()
    return [Image.open(example.folder / json.loads(row)["file_name"]) for row in rows]


def _judge_style(example: Example, images_by_weight: Mapping[float, list[Image.Image]]) -> bool:
    """Measure whether the images at full weight are in the style of the example."""
    style = import_module("worker.core.starter.style")
    verdict = style.looks_like_style(
        images_by_weight[0.0], images_by_weight[1.0], _references(example)
    )
    print(f"\n{example.title}: {verdict}")
    return bool(verdict.passed)
