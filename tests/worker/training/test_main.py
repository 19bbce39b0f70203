import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker import starter
from worker.adapters import canonical
from worker.training.__main__ import FAILED, INTERRUPTED

CONFIG = {"steps": 3, "batch_size": 1, "rank": 2, "alpha": 2, "precision": "fp32"}


def _job(folder: Path, pictures: Path, **changes: Any) -> Path:
    job = {"model": str(starter.PATH), "data": str(pictures), "out": str(folder / "out")}
    path = folder / "job.json"
    path.write_text(json.dumps(job | {"config": CONFIG} | changes))
    return path


def _start(job: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "worker.training", str(job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_a_job_from_a_file_trains_and_can_be_interrupted_and_resumed(
    tmp_path: Path, folder: Path
) -> None:
    long = _job(tmp_path, folder, config=CONFIG | {"steps": 2_000})
    process = _start(long)
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("step 1/2000"):
            process.send_signal(signal.SIGTERM)
            break
    rest, errors = process.communicate(timeout=120)
    assert process.returncode == INTERRUPTED, errors
    assert "start it again to go on" in rest
    assert any("parameters (" in line for line in seen)
    (checkpoint,) = (tmp_path / "out" / "checkpoints").iterdir()
    assert int(checkpoint.name.removeprefix("step-")) >= 1


def test_a_finished_job_leaves_an_adapter(tmp_path: Path, folder: Path) -> None:
    process = _start(_job(tmp_path, folder))
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "step 3/3" in output
    assert canonical.load(tmp_path / "out" / "adapter.safetensors").metadata["steps"] == "3"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config": CONFIG | {"stepz": 3}}, "config.stepz: Extra inputs are not permitted"),
        ({"config": CONFIG | {"resolution": 65}}, "config.resolution: "),
        ({"data": "/nowhere"}, "There is no folder /nowhere."),
        ({"model": "/nowhere"}, "There is no base model at 'nowhere'."),
    ],
)
def test_a_job_that_cannot_be_done_says_why_in_one_line(
    tmp_path: Path, folder: Path, changes: dict[str, Any], sentence: str
) -> None:
    process = _start(_job(tmp_path, folder, **changes))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == FAILED
    assert sentence in errors
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1
