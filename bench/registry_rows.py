"""Fills an empty registry with synthetic adapters, versions, runs, samples and renders, fast.

The tables are those the migrations made; the rows are written past the ORM in one transaction
(SQLite: executemany; PostgreSQL: COPY). Every text follows from the seed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlmodel import SQLModel

from app.registry.adapters.library import search
from app.registry.job_kinds.states import JobStatus
from app.registry.tables.adapters import LATEST, Adapter, AdapterAlias, AdapterTag, AdapterVersion
from app.registry.tables.added_models import BaseModel
from app.registry.tables.blobs import LOOK_VERSION, AdapterLook, ImageLook
from app.registry.tables.datasets import Dataset, DatasetVersion
from app.registry.tables.renders import Render, RenderAdapter, RenderImage
from app.registry.tables.runs import Run, Sample
from worker.core.likeness import FEATURES, pack
from worker.core.training.config import TrainConfig
from worker.core.training.presets import SAMPLE_SUBJECTS as SUBJECTS

START = datetime(2026, 1, 1, tzinfo=UTC)
SYLLABLES = re.findall(
    r"\w+",
    "ba be bo cha co da del fa flo ga gra ha in ka la lu ma mo na ne oa pa pra ri ro sa se si sta "
    "ta te ti to tra ua va ve vi wa wo ya zi ink oil art neo pop",
)
WORDS, TAGS = 4_000, 300
NOTE_WORDS = 40
FAMILIES = ("sd1",) * 14 + ("sdxl",) * 5 + ("sd2",)
SAMPLES = 4
SHARE_STARRED = 0.04
BATCH = 5_000


@dataclass
class FilledRegistry:
    """The words, tags and slugs of the filled registry, for queries and URLs."""

    words: list[str]
    tags: list[str]
    slugs: list[str] = field(default_factory=list)


def vocabulary(dice: random.Random, number: int) -> list[str]:
    """Distinct random words; the first are the most common."""
    found: dict[str, None] = {}
    while len(found) < number:
        found["".join(dice.choices(SYLLABLES, k=dice.choice((2, 2, 3, 3, 4))))] = None
    return list(found)


def commonly(dice: random.Random, words: Sequence[str]) -> str:
    """One of the words; as in any language, few of them make most of the text."""
    return words[min(int(len(words) ** dice.random()) - 1, len(words) - 1)]


def fill(engine: sa.Engine, *, adapters: int, renders: int, seed: int = 0) -> FilledRegistry:
    """Fill an empty, migrated database."""
    dice = random.Random(seed)
    words = vocabulary(dice, WORDS + TAGS)
    made = FilledRegistry(words[TAGS:], words[:TAGS])
    with engine.begin() as connection, _indexed_at_the_end(connection):
        _shared(connection)
        keys = itertools.count(1)
        for start in range(0, adapters, BATCH):
            wanted = min(BATCH, adapters - start)
            _adapters(connection, dice, made, list(itertools.islice(keys, wanted)))
        for start in range(0, renders, BATCH):
            last = min(start + BATCH, renders)
            _renders(connection, dice, made, range(start + 1, last + 1))
    return made


@contextmanager
def _indexed_at_the_end(connection: sa.Connection) -> Iterator[None]:
    """Build the search index from all texts at once, like the migrations."""
    if connection.dialect.name == "sqlite":
        find = "SELECT sql FROM sqlite_master WHERE name = 'adapter_search_inserted'"
        trigger = connection.exec_driver_sql(find).scalar_one()
        connection.exec_driver_sql("DROP TRIGGER adapter_search_inserted")
        yield
        connection.exec_driver_sql("INSERT INTO adapter_fts(adapter_fts) VALUES ('rebuild')")
        connection.exec_driver_sql(trigger)
        return
    find = "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_adapter_search_grams'"
    index = connection.exec_driver_sql(find).scalar_one()
    connection.exec_driver_sql("DROP INDEX ix_adapter_search_grams")
    yield
    connection.exec_driver_sql("SET LOCAL maintenance_work_mem = '256MB'")
    connection.exec_driver_sql(index)


def row(model: type[SQLModel], **values: Any) -> dict[str, Any]:
    """A row with the defaults of its table, as plain values a driver takes."""
    filled = model(**values)
    return {
        column.name: _plain(getattr(filled, column.name), column)
        for column in model.__table__.columns  # type: ignore[attr-defined]
    }


def _plain(value: Any, column: Any) -> Any:
    if isinstance(column.type, sa.JSON):
        return json.dumps(value)
    return value


def insert(connection: sa.Connection, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store rows of one table that all have the same columns."""
    if not rows:
        return
    names = list(rows[0])
    columns = ", ".join(f'"{name}"' for name in names)
    if connection.dialect.name == "sqlite":
        places = ", ".join("?" for _ in names)
        values = [tuple(_sqlite(one[name]) for name in names) for one in rows]
        connection.exec_driver_sql(f"INSERT INTO {table} ({columns}) VALUES ({places})", values)
        return
    driver: Any = connection.connection.driver_connection
    with driver.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
        for one in rows:
            copy.write_row([one[name] for name in names])


def _sqlite(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")
    return value


def _shared(connection: sa.Connection) -> None:
    """The base model, dataset and dataset version of all runs."""
    insert(
        connection,
        "base_model",
        [
            row(BaseModel, id=1, slug="base", name="Base", source="base", family="sd1")
            | {"status": "ready"}
        ],
    )
    insert(connection, "dataset", [row(Dataset, id=1, slug="pictures", name="Pictures")])
    insert(
        connection,
        "dataset_version",
        [row(DatasetVersion, id=1, dataset_id=1, fingerprint="0" * 64, image_count=24, items=[])],
    )


def sha(*parts: object) -> str:
    """A unique hash."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _adapters(
    connection: sa.Connection, dice: random.Random, made: FilledRegistry, keys: Sequence[int]
) -> None:
    tables: dict[str, list[Mapping[str, Any]]] = {}

    def add(table: str, one: Mapping[str, Any]) -> None:
        tables.setdefault(table, []).append(one)

    config = TrainConfig().model_dump(mode="json")
    patterns = {
        "adapter": row(Adapter, slug="", name="", base_family=""),
        "run": row(Run, name="", dataset_id=1, dataset_version_id=1, base_model_id=1, config=config,
                   total_steps=100, status=JobStatus.SUCCEEDED, step=100),
        "sample": row(Sample, run_id=0, step=0, prompt_index=0, prompt="a fox", seed=1, sha256=""),
        "adapter_look": row(AdapterLook, adapter_id=0, look_version=LOOK_VERSION, basis="prompts",
                            images=[]),
        "image_look": row(ImageLook, sha256="", look_version=LOOK_VERSION),
        "adapter_version": row(AdapterVersion, adapter_id=0, version=1, sha256="", size_bytes=10**6,
                               dataset_version_id=1, base_model_id=1, rank=8, alpha=8.0,
                               config=config),
    }  # fmt: skip
    texts = []
    chance = np.random.default_rng(keys[0])
    for key in keys:
        name = " ".join(commonly(dice, made.words) for _ in range(dice.choice((1, 2, 2, 3))))
        tags = {commonly(dice, made.tags) for _ in range(dice.choice((0, 1, 2, 3)))}
        trigger = [commonly(dice, made.words)] if dice.random() < 0.8 else []
        notes = " ".join(commonly(dice, made.words) for _ in range(dice.randrange(NOTE_WORDS)))
        family, slug = dice.choice(FAMILIES), f"{name.replace(' ', '-')[:60]}-{key}"
        made.slugs.append(slug)
        moment = START + timedelta(seconds=dice.randrange(20_000_000), microseconds=key)
        own = {"id": key, "slug": slug, "name": name, "sort_name": search.sort_name(name)}
        own |= {"trigger_words": json.dumps(trigger), "notes": notes, "base_family": family}
        own_star = dice.random() < SHARE_STARRED
        own |= {"starred": own_star, "updated_at": moment}
        add("adapter", patterns["adapter"] | own | {"created_at": moment})
        add("run", patterns["run"] | {"id": key, "name": name})
        for number in range(SAMPLES):
            place = {"step": 100, "prompt_index": number, "run_id": key, "id": None}
            place["id"] = key * SAMPLES + number
            add("sample", patterns["sample"] | place | {"sha256": sha("sample", key, number)})
        versions = dice.choice((1, 1, 1, 2, 3))
        for number in range(1, versions + 1):
            where = {"id": key * 3 + number - 3, "adapter_id": key, "version": number}
            own = {"sha256": sha("version", key, number), "run_id": key if number == 1 else None}
            add("adapter_version", patterns["adapter_version"] | where | own)
        looks = chance.standard_normal((1 + SAMPLES, FEATURES))
        shown = [(SUBJECTS[number], sha("sample", key, number)) for number in range(SAMPLES)]
        for (_, sha256), look in zip(shown, looks[1:], strict=True):
            add("image_look", patterns["image_look"] | {"sha256": sha256, "look": pack(look)})
        measured = {"version_id": where["id"], "images": json.dumps(shown), "look": pack(looks[0])}
        add("adapter_look", patterns["adapter_look"] | {"adapter_id": key} | measured)
        alias = row(AdapterAlias, adapter_id=key, alias=LATEST, version_id=where["id"])
        add("adapter_alias", alias)
        for tag in sorted(tags):
            add("adapter_tag", row(AdapterTag, adapter_id=key, tag=tag))
        text = search.text_of(
            [name, slug, *trigger, "Base"],
            tags=tags,
            family=family,
            starred=own_star,
            notes=notes,
        )
        texts.append({"adapter_id": key, "text": text})
    for table in ("adapter", "run", "sample", "adapter_version", "adapter_alias", "adapter_tag",
                  "image_look", "adapter_look"):  # fmt: skip
        insert(connection, table, tables.get(table, []))
    if connection.dialect.name != "sqlite":
        texts = [one | {"grams": search.grams(str(one["text"]))} for one in texts]
    insert(connection, "adapter_search", texts)


def _renders(
    connection: sa.Connection, dice: random.Random, made: FilledRegistry, keys: Iterable[int]
) -> None:
    pattern = row(Render, base_model_id=1, prompt="", seed=1, steps=20, guidance=3.5, width=64,
                  height=64, cache_key="", status=JobStatus.SUCCEEDED)  # fmt: skip
    renders, images, used = [], [], []
    for key, adapter in _drawn_with(dice, len(made.slugs), keys):
        slug = made.slugs[adapter - 1]
        stack = [
            {
                "adapter_id": adapter,
                "version": 1,
                "version_id": adapter * 3 - 2,
                "name": slug,
                "slug": slug,
                "weight": 1.0,
            }
        ]
        own = {"id": key, "prompt": f"a {commonly(dice, made.words)}", "cache_key": sha(key)}
        renders.append(pattern | own | {"adapters": json.dumps(stack)})
        image = {"id": key, "render_id": key, "sha256": sha("render", key)}
        images.append(row(RenderImage, index=0, seed=1, **image))
        used.append(row(RenderAdapter, adapter_id=adapter, render_id=key))
    insert(connection, "render", renders)
    insert(connection, "render_image", images)
    insert(connection, "render_adapter", used)


def _drawn_with(
    dice: random.Random, adapters: int, keys: Iterable[int]
) -> Iterator[tuple[int, int]]:
    """The adapter of each render; a few are used much more often."""
    for key in keys:
        yield key, max(1, int(adapters ** dice.random()))
