"""Imports of the core, and of a process that stays on a CPU: no compiler until one compiles.

Nor does a base with a UNet load the networks of chat models.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "worker" / "core"
NOT_IN_THE_CORE = {"fastapi", "starlette", "uvicorn", "sqlmodel", "sqlalchemy", "alembic"}
NOT_IN_THE_CORE |= {"app", "celery"}
# all of the core, in a fork; a render and a training step
PROGRAM = """
import gc, importlib, json, os, sys
gc.disable()  # it would look through the same objects again and again
from pathlib import Path
from worker.core.lean_imports import lean_imports

def loaded():
    names = ("torch._dynamo.eval_frame", "sympy", "bitsandbytes", "torch.distributed.tensor")
    return [name for name in sys.modules if name in names or "qwen3" in name]

with lean_imports("cpu"):
    import worker.core.inference.pipeline, worker.core.training.calibrate
    if os.fork() == 0:
        for name in sys.argv[3:]:
            importlib.import_module(name)
        packages = {name.partition(".")[0] for name in sys.modules}
        Path(sys.argv[2]).write_text(json.dumps(sorted(packages)))
        os._exit(0)
    assert os.wait()[1] == 0
    from worker.runtime import trainer_orders
    from worker.runtime.renders import warm_pipelines
imported = loaded()

from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.training.calibrate import calibrate
from worker.core.training.presets import Preset, preset_config

pipeline = ResidentPipeline.load(Path(sys.argv[1]), "cpu", name="starter")
pipeline.render(RenderConfig(prompt="a kite", steps=1))
config = preset_config(Preset.QUICK, resolution=32, images=1)
calibrate(pipeline.base, config, device="cpu", timed_steps=1)
print(json.dumps([imported, loaded()]))
"""
COMPILER = """
import json, sys
from worker.core.lean_imports import lean_imports

with lean_imports("cpu"):
    import torch
    import transformers
from worker.core.deferred_dynamo import DeferredDynamo
is_deferred = lambda: isinstance(sys.modules["torch._dynamo"], DeferredDynamo)
deferred = is_deferred()

@torch.compiler.disable
def disabled(x):
    return x + 1

import torch._dynamo.config as config  # a submodule loads the real package
real = sys.modules["torch._dynamo"]
same = [
    torch._dynamo is real, config is real.config, config.__spec__.origin == config.__file__,
    torch.compile(lambda x: disabled(x) * 2, backend="eager")(torch.ones(1)).item() == 4.0,
    torch.distributed.is_available(),
]
print(json.dumps([deferred, is_deferred(), same]))
"""


def printed(program: str, *arguments: str) -> Any:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_the_core_loads_no_web_no_database_and_a_unet_no_compiler_and_no_chat_model(
    small_starter: Path, tmp_path: Path
) -> None:
    """All of it is imported in one process with its libraries; the other renders and trains."""
    files = [file for file in sorted(CORE.rglob("*.py")) if file.stem != "__main__"]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    names = [name.removesuffix(".__init__") for name in names]
    packages = tmp_path / "packages.json"
    assert printed(PROGRAM, str(small_starter), str(packages), *names) == [[], []]
    assert NOT_IN_THE_CORE & set(json.loads(packages.read_text())) == set()


@pytest.mark.wide
def test_the_compiler_is_loaded_when_something_is_compiled() -> None:
    assert printed(COMPILER) == [True, False, [True] * 5]
