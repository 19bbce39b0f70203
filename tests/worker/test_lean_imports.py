"""Imports of a process that stays on a CPU: no compiler, until somebody compiles."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# a render and a training step with the embedded base, then the compiler
PROGRAM = """
import json, sys
from worker.core.lean_imports import lean_imports

def loaded():
    names = ("torch._dynamo.eval_frame", "sympy", "bitsandbytes", "torch.distributed.tensor")
    return [name for name in names if name in sys.modules]

with lean_imports("cpu"):
    from worker.runtime import trainer_orders
    from worker.runtime.renders import warm_pipelines
imported = loaded()

from worker.core import starter
from worker.core.inference.config import RenderConfig
from worker.core.inference.pipeline import ResidentPipeline
from worker.core.training.calibrate import calibrate
from worker.core.training.presets import Preset, preset_config

pipeline = ResidentPipeline.load(starter.PATH, "cpu", name="starter")
pipeline.render(RenderConfig(prompt="a kite", steps=1))
config = preset_config(Preset.QUICK, resolution=32, images=1)
calibrate(pipeline.base, config, device="cpu", timed_steps=1)
worked = loaded()

import torch
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
print(json.dumps([imported, worked, deferred, is_deferred(), same]))
"""


@pytest.mark.slow
def test_a_process_on_a_cpu_loads_no_compiler_until_it_compiles() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    imported, worked, deferred, still_deferred, same = json.loads(done.stdout.splitlines()[-1])
    assert (imported, worked, deferred) == ([], [], True)
    assert not still_deferred
    assert same == [True] * 5
