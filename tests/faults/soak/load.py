"""The load of a soak: what people and programs do, as threads with pauses between requests."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.faults.jobs import CONFIG
from tests.faults.soak.figures import Figures
from tests.faults.stacks import FaultyStack
from tests.images import make_png

PAGES = ("/", "/datasets", "/runs", "/adapters", "/play", "/base-models", "/system")
UPLOADED = 3  # images in one upload
RUN_STEPS = (20, 60)
TIMEOUT_SECONDS = 90.0


@dataclass
class Ledger:
    """The jobs that were accepted, and how many requests for one broke without an answer."""

    runs: list[int] = field(default_factory=list)
    renders: list[int] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=lambda: {"runs": 0, "renders": 0})


class Load:
    """Users of a stack, each a thread with its own random numbers, until `stop`."""

    def __init__(self, stack: FaultyStack, figures: Figures, seed: int) -> None:
        self.ledger = Ledger()
        self._stack = stack
        self._figures = figures
        self._stopping = threading.Event()
        users: list[tuple[Callable[[User], None], float]] = [
            (User.browse, 0.5),
            (User.browse, 0.8),
            (User.upload, 6.0),
            (User.train, 20.0),
            (User.render, 3.0),
            (User.keep_library, 4.0),
        ]
        self._threads = [
            threading.Thread(
                target=self._repeat, args=(action, pause, random.Random(f"{seed} {number}"))
            )
            for number, (action, pause) in enumerate(users)
        ]

    def start(self) -> None:
        """Let the users begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Return when all users have ended what they were doing."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _repeat(self, action: Callable[[User], None], pause: float, rng: random.Random) -> None:
        with httpx.Client(base_url=self._stack.url, timeout=TIMEOUT_SECONDS) as client:
            user = User(client, self._figures, self.ledger, rng)
            while not self._stopping.wait(pause * rng.uniform(0.5, 1.5)):
                try:
                    action(user)
                except Unavailable:
                    continue
                except Exception as error:
                    self._figures.break_promise(f"{action.__name__}: {error!r}")


class Unavailable(Exception):
    """The server did not answer, or said that it cannot at the moment."""


@dataclass
class User:
    """One client and what it does."""

    client: httpx.Client
    figures: Figures
    ledger: Ledger
    rng: random.Random

    def request(self, action: str, method: str, place: str, **content: Any) -> httpx.Response:
        """The answer to a request, counted. Raises Unavailable."""
        began = time.monotonic()
        try:
            answer = self.client.request(method, place, **content)
        except httpx.TransportError as error:
            self.figures.unanswered(action, error)
            raise Unavailable from error
        self.figures.answered(action, time.monotonic() - began, answer.status_code)
        if answer.status_code >= 500:
            raise Unavailable
        return answer

    def listed(self, place: str) -> list[dict[str, Any]]:
        """The entries of a list of the API."""
        found: list[dict[str, Any]] = self.request("list", "GET", f"/api/v1{place}").json()
        return found

    def browse(self) -> None:
        """Open a page, and one image of a list."""
        page = self.request("browse", "GET", self.rng.choice(PAGES))
        images = [part.split('"')[0] for part in page.text.split('src="/media/')[1:]]
        if images:
            self.request("image", "GET", f"/media/{self.rng.choice(images)}")

    def upload(self) -> None:
        """Add images to a dataset; every few times to a new one, and delete an old one."""
        datasets = self.listed("/datasets")
        if not datasets or self.rng.random() < 0.2:
            name = f"Soak {self.rng.randrange(10**6)}"
            body = {"name": name, "trigger_word": "soak"}
            datasets = [self.request("dataset", "POST", "/api/v1/datasets", json=body).json()]
        dataset = self.rng.choice(datasets)
        files = []
        for _ in range(UPLOADED):
            number = self.rng.randrange(10**6)
            files.append(("files", (f"{number}.png", make_png(number, (96, 96)))))
            files.append(("files", (f"{number}.txt", b"a shape, soak style")))
        self.request("upload", "POST", f"/api/v1/datasets/{dataset['id']}/images", files=files)
        if len(datasets) > 3 and self.rng.random() < 0.3:
            oldest = min(datasets, key=lambda one: int(one["id"]))
            self.request("delete", "DELETE", f"/api/v1/datasets/{oldest['id']}")

    def train(self) -> None:
        """Order a short run."""
        filled = [one for one in self.listed("/datasets") if one["image_count"] >= 2]
        if not filled:
            return
        config = CONFIG | {"steps": self.rng.randint(*RUN_STEPS), "checkpoint_every": 10}
        body = {
            "dataset_id": self.rng.choice(filled)["id"],
            "preset": "quick",
            "config": config,
            "name": f"Soak {self.rng.randrange(10**6)}",
        }
        self.order("runs", "train", body, self.ledger.runs)

    def render(self) -> None:
        """Order an image, often with an adapter."""
        body: dict[str, Any] = {"prompt": f"a kite, number {self.rng.randrange(10**6)}", "steps": 4}
        adapters = self.listed("/adapters")
        if adapters and self.rng.random() < 0.7:
            body["adapters"] = [{"id": self.rng.choice(adapters)["id"], "weight": 0.8}]
        self.order("renders", "render", body, self.ledger.renders)

    def order(self, kind: str, action: str, body: dict[str, Any], accepted: list[int]) -> None:
        """Order a job, and write it down where it was accepted."""
        try:
            answer = self.request(action, "POST", f"/api/v1/{kind}", json=body)
        except Unavailable:
            self.ledger.unknown[kind] += 1  # it may have been stored before the answer broke
            raise
        if answer.status_code == 202:
            accepted.append(int(answer.json()["id"]))
        elif answer.status_code not in (404, 409):  # deleted by another user meanwhile
            self.figures.break_promise(f"{action}: {answer.status_code} {answer.text[:200]}")

    def keep_library(self) -> None:
        """Download an adapter; often import it with changed weights, sometimes delete one."""
        adapters = self.listed("/adapters")
        if not adapters:
            return
        adapter = self.rng.choice(adapters)
        wish = {"format": self.rng.choice(["kohya", "peft", "bundle"])}
        place = f"/api/v1/adapters/{adapter['id']}"
        answer = self.request("export", "GET", f"{place}/download", params=wish)
        if answer.status_code == 200 and wish["format"] == "kohya" and len(adapters) < 40:
            content = bytearray(answer.content)
            content[-self.rng.randrange(1, 200) * 2] ^= 1  # the lowest bit of an fp16 number
            name = f"import-{self.rng.randrange(10**6)}.safetensors"
            sent = self.request(
                "import",
                "POST",
                "/api/v1/adapters/import",
                files={"file": (name, bytes(content))},
            )
            if sent.status_code != 201:
                self.figures.break_promise(f"import: {sent.status_code} {sent.text[:200]}")
        elif len(adapters) > 8:
            self.request("delete", "DELETE", place)
            self.request("delete", "DELETE", place.replace("/v1", "/v1/storage/forever"))
