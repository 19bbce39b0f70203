"""The real stack, installed from the wheel, on a free port and in folders of its own.

What is tested here thus also holds for `pip install`; tests/app/supervisor starts a checkout.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from tests.fake_hub import WRITE, open_hub
from tests.wheel import build_wheel, install_wheel
from worker.core import starter

QUERY = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
READY = re.compile(r"^Brushwork is ready at (http://\S+)$", re.MULTILINE)
START_SECONDS = 240.0  # generous, as the next: the suite shares two cores
END_SECONDS = 120.0


@dataclass
class Stack:
    """A running `brushwork serve`."""

    command: list[str]
    process: subprocess.Popen[str]
    data_dir: Path
    url: str = ""
    output: list[str] = field(default_factory=list)

    def client(self) -> httpx.Client:
        """A client of its REST API."""
        return httpx.Client(base_url=self.url, timeout=240)

    def logs(self) -> str:
        """The logs of its processes, for a test that failed."""
        files = sorted((self.data_dir / "logs").glob("*.log"))
        tails = [f"== {file.name}\n{file.read_text(errors='replace')[-4000:]}" for file in files]
        return "\n".join([*self.output, *tails])


def start_stack(brushwork: Sequence[str], data_dir: Path, **environment: str) -> Stack:
    """Start everything with this `brushwork` command, and wait until the page answers."""
    flags = ["--port", "0", "--no-browser", "--data-dir", str(data_dir)]
    command = [*brushwork, "serve", *flags]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("BRUSHWORK_")}
    clean.pop("PYTHONPATH", None)
    clean["BRUSHWORK_EVALUATE_RUNS"] = "off"  # measured by its own tests
    process = subprocess.Popen(
        command,
        cwd=data_dir,
        env=clean | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    stack = Stack(command, process, data_dir)
    threading.Thread(target=_read, args=(stack,), daemon=True).start()
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        found = READY.search("\n".join(stack.output))
        if found:
            stack.url = found.group(1)
            return stack
        time.sleep(0.05)
    stop_stack(stack)
    pytest.fail(f"the stack did not start:\n{stack.logs()}")


def _read(stack: Stack) -> None:
    assert stack.process.stdout is not None
    with stack.process.stdout as lines:
        stack.output.extend(line.rstrip("\n") for line in lines)


def stop_stack(stack: Stack) -> int:
    """End it as Ctrl-C does; its exit code."""
    if stack.process.poll() is None:
        stack.process.send_signal(signal.SIGINT)
    try:
        return stack.process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        stack.process.kill()
        raise


@contextmanager
def open_stack(folder: Path) -> Iterator[Stack]:
    """The installed stack on an empty data folder; its Hub has what the documentation names."""
    places = {name: folder / name for name in ("wheel", "installed", "data", "hf")}
    for place in places.values():
        place.mkdir()
    programs = install_wheel(build_wheel(places["wheel"]), places["installed"])
    with open_hub() as hub:
        hub.tokens["good"] = WRITE
        hub.add_folder("stable-diffusion-v1-5/stable-diffusion-v1-5", starter.PATH)
        hub.add("ada/woodcut-lora", {"woodcut.safetensors": lora_file(seed=2)})
        running = start_stack(
            [str(programs / "brushwork")],
            places["data"],
            BRUSHWORK_HUB_ENDPOINT=hub.url,
            BRUSHWORK_HUB_TOKEN="good",
            HF_HOME=str(places["hf"]),
        )
        yield running
        assert stop_stack(running) == 0, running.logs()


def lora_file(seed: int) -> bytes:
    """A LoRA of one layer of the embedded base, in kohya's naming."""
    from safetensors.numpy import save

    from worker.core.lora_files.base_layers import adaptable_shapes

    path = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    out, width = adaptable_shapes(starter.PATH)[path]
    random = np.random.default_rng(seed)
    return save(
        {
            f"{QUERY}.lora_down.weight": random.normal(size=(4, width)).astype(np.float32),
            f"{QUERY}.lora_up.weight": random.normal(size=(out, 4)).astype(np.float32),
            f"{QUERY}.alpha": np.array(4.0, dtype=np.float32),
        }
    )


@pytest.fixture
def api(stack: Stack) -> Iterator[httpx.Client]:
    """A client of the stack's REST API."""
    with stack.client() as client:
        yield client


def poll(client: httpx.Client, place: str, *, seconds: float) -> dict[str, Any]:
    """The job at `place` once it has ended, or the model once it is ready."""
    until = time.monotonic() + seconds
    while True:
        job: dict[str, Any] = client.get(f"/api/v1{place}").raise_for_status().json()
        ended = job["status"] in ("succeeded", "failed", "canceled", "ready")
        if ended or time.monotonic() > until:
            return job
        time.sleep(0.2)
