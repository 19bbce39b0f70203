"""A registry of private things in which every free text is a word found nowhere else."""

from __future__ import annotations

import itertools
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import sqlalchemy as sa
from fastapi import FastAPI
from sqlmodel import SQLModel

import app.registry.tables.all  # noqa: F401
from app.registry.state import AppState
from app.registry.tables.owned import NAMES, is_limited
from tests.app.access.test_rights import read_table

WORD = re.compile(rb"zq[a-z]{5}", re.IGNORECASE)
HASH = re.compile(r"[0-9a-f]{64}")
FREE_TEXTS = {
    *("name", "title", "slug", "caption", "prompt", "prompts", "negative", "negative_prompt"),
    *("notes", "note", "filename", "error", "guess", "trigger_word", "trigger_words", "tags"),
    *("tag", "license", "description", "search_text", "sort_name", "source", "reason", "text"),
    *("subject", "subjects", "author", "source_url", "alias", "word"),
}
"""Columns and JSON keys whose texts people write, or that are made from such texts."""
PARAMETERS = {
    "adapter_id": ["adapter"],
    "base_id": ["base_model"],
    "dataset_id": ["dataset"],
    "edit_id": ["dataset_edit"],
    "evaluation_id": ["io_job"],
    "grid_id": ["grid"],
    "image_id": ["image", "render"],
    "job_id": ["io_job"],
    "preset_id": ["own_preset"],
    "recipe_id": ["recipe"],
    "render_id": ["render"],
    "run_id": ["run"],
    "search_id": ["io_job"],
    "set_id": ["prompt_set"],
    "sweep_id": ["sweep"],
    "test_id": ["blind_test"],
    "version_id": ["dataset_version", "adapter_version"],
}
FIXED = {
    "version": ["1", "2"], "step": ["10", "20"], "place": ["0"], "kind": ["text", "tags"],
    "alias": ["best"], "number": ["1"], "side": ["a"], "shown": ["0"], "size": ["256"],
    "folder": ["0"], "tool": ["resize"], "act": ["delete"], "action": ["save"],
    "session_id": ["999999"], "style": ["a"], "name": ["a"], "token": ["a"],
}  # fmt: skip
ABSENT_ID, ABSENT_SLUG, ABSENT_HASH = "987654", "nothing-of-this-name", "0" * 64


@dataclass(frozen=True)
class Planted:
    """The ids, slugs and hashes of the private things."""

    ids: dict[str, list[int]]  # by table
    slugs: dict[str, list[str]]  # by table
    hashes: frozenset[str]

    def values_of(self, path: str, name: str) -> list[str]:
        """What a parameter of a path is filled with."""
        if name == "slug":
            table = path.split("/")[1].rstrip("s")
            return self.slugs.get(table, []) or self.slugs["adapter"]
        if name == "sha256":
            return sorted(self.hashes)
        if name == "job":
            return [f"io-{key}" for key in self.ids["io_job"]] + [
                f"run-{key}" for key in self.ids["run"]
            ]
        if name in ("thing", "thing_id", "model_id") or (
            path.startswith("/share/") and name == "kind"
        ):
            return self._thing(path, name)
        if name in FIXED:
            return FIXED[name]
        if name not in PARAMETERS:  # a row that is no part of a thing
            return ["1", "2"]
        return sorted({str(key) for table in PARAMETERS[name] for key in self.ids.get(table, [1])})

    def _thing(self, path: str, name: str) -> list[str]:
        if name in ("thing", "kind"):
            return ["dataset", "adapter", "run", "render", "grid", "base_model", "sweep"]
        tables = ["caption_model"] if "caption" in path else ["base_model"]
        tables = tables if name == "model_id" else ["dataset"]
        return [str(key) for table in tables for key in self.ids[table]]


def plant(state: AppState, owner_id: int) -> Planted:
    """Give all things but the embedded base to a person, as private, and change their texts."""
    words = ("".join(letters) for letters in itertools.product("bcdfghjk", repeat=5))
    ids: dict[str, list[int]] = {}
    slugs: dict[str, list[str]] = {}
    hashes: set[str] = set()
    with state.database.engine.begin() as connection:
        for table in SQLModel.metadata.sorted_tables:
            if not is_limited(table.name):
                continue
            rows = [dict(row) for row in connection.execute(table.select()).mappings()]
            for row in rows:
                is_base = table.name == "base_model" and row["slug"] == "starter"
                if is_base or (table.name.startswith("base_") and row.get("base_model_id") == 1):
                    continue
                new = {
                    key: _unique(table.name, key, value, words)
                    for key, value in row.items()
                    if key in table.columns and not table.columns[key].foreign_keys
                }
                if "visibility" in row:
                    new |= {"owner_id": owner_id, "visibility": "private"}
                changed = {key: value for key, value in new.items() if value != row[key]}
                keys = [column == row[column.name] for column in table.primary_key]
                if changed:
                    connection.execute(table.update().where(*keys).values(changed))
                if "id" in row:
                    ids.setdefault(table.name, []).append(row["id"])
                if "slug" in row:
                    slugs.setdefault(table.name, []).append(new["slug"])
                hashes |= set(HASH.findall(json.dumps(row, default=str)))
    return Planted(ids, slugs, frozenset(hashes))


def _unique(table: str, key: str, value: Any, words: Any) -> Any:
    """The value with a word of its own in each free text."""
    if isinstance(value, dict):
        return {inner: _unique(table, inner, one, words) for inner, one in value.items()}
    if isinstance(value, list):
        return [_unique(table, key, one, words) for one in value]
    if isinstance(value, str) and key in FREE_TEXTS:
        word = f"zq{next(words)}"
        return f"{value}-{word}" if key in ("slug", "filename") else f"{value} {word}".strip()
    return value


def canaries_in(answer: httpx.Response, planted: Planted, asked: str) -> set[str]:
    """Words and hashes of private things in an answer, but for those of the request itself."""
    head = "\n".join(f"{key}: {value}" for key, value in answer.headers.items())
    whole = head.encode() + b"\n" + answer.content
    found = {match.decode().lower() for match in WORD.findall(whole)}
    found |= set(HASH.findall(whole.decode(errors="replace"))) & planted.hashes
    return {one for one in found if one not in asked.lower()}


def addresses(planted: Planted, method: str, most: int) -> list[tuple[str, str, str]]:
    """(route, address, the same address of things that are not there) of the routes of a method."""
    found = []
    for route in read_table("routes.csv"):
        path = route["path"]
        own = method != "GET" and route["action"] in ("account", "open")  # such as a logout
        if route["method"] != method or own or path == "/static":
            continue
        names = re.findall(r"{(\w+)}", path)
        lists = [planted.values_of(path, name)[:most] for name in names]
        for values in itertools.product(*lists) if len(names) < 3 else zip(*lists, strict=False):
            address = absent = path
            for name, value in zip(names, values, strict=True):
                address = address.replace(f"{{{name}}}", quote(value))
                absent = absent.replace(f"{{{name}}}", _absent(name, value))
            found.append((path, address, absent))
    return found


def _absent(name: str, value: str) -> str:
    if (name in FIXED and name != "session_id") or name in ("thing", "kind"):
        return value
    if name == "slug":
        return ABSENT_SLUG
    if name == "sha256":
        return ABSENT_HASH
    return re.sub(r"\d+", ABSENT_ID, value)


def queries(planted: Planted) -> list[str]:
    """Addresses with queries that name private things."""
    word = next(iter(planted.slugs["adapter"]))
    keys = {table: ",".join(map(str, some[:3])) for table, some in planted.ids.items()}
    found = []
    lists = [
        row["path"]
        for row in read_table("routes.csv")
        if row["method"] == "GET" and "{" not in row["path"] and row["path"] not in SKIPPED
    ]
    for path in lists:
        found += [f"{path}?q=zq", f"{path}?q={word}"]
        named = {key: planted.ids.get(table, [0])[0] for key, table in NAMES.items()}
        found.append(f"{path}?" + "&".join(f"{key}={one}" for key, one in named.items()))
        for key in ("ids", "id", "run", "runs", "render", "like"):
            table = key.rstrip("s") if key.rstrip("s") in keys else "render"
            found.append(f"{path}?" + "&".join(f"{key}={one}" for one in keys[table].split(",")))
        named = {table: some[0] for table, some in planted.slugs.items()}
        named |= {"adapter-0": word, "on-0": "1", "like": word}
        found.append(f"{path}?" + "&".join(f"{key}={one}" for key, one in named.items()))
    return found


SKIPPED = {"/static", "/logout", "/docs", "/healthz", "/readyz", "/api/v1/examples"}


def same_but_ids(answer: httpx.Response, address: str) -> tuple[int, str, str]:
    """Status, body and headers of an answer, without numbers and names of the request."""
    unlike = ("date", "x-request-id", "content-length", "content-security-policy", "etag")
    head = "\n".join(f"{key}: {one}" for key, one in answer.headers.items() if key not in unlike)
    texts = []
    for text in (answer.content.decode(errors="replace"), head):
        for part in set(re.split(r"[/?=&]", address)):
            if part == ABSENT_SLUG or "zq" in part or len(part) == 64:
                text = text.replace(part, "NAME")
        texts.append(re.sub(r"\d+", "N", re.sub(r'nonce="[^"]+"', "", text)))
    return answer.status_code, texts[0], texts[1]


Rows = dict[str, dict[Any, dict[str, Any]]]


def rows_of(app: FastAPI) -> Rows:
    """All rows of limited tables, by table and key."""
    state: AppState = app.state.brushwork
    found: Rows = defaultdict(dict)
    with state.database.engine.connect() as connection:
        for table in SQLModel.metadata.sorted_tables:
            if is_limited(table.name) or table.name == "share":
                for row in connection.execute(sa.select(table)).mappings():
                    found[table.name][tuple(row[c.name] for c in table.primary_key)] = dict(row)
    return found


def bodies(document: dict[str, Any], schema: dict[str, Any], planted: Planted, which: int) -> Any:
    """A JSON body for a schema, whose fields name private things wherever they name one."""

    def value(schema: dict[str, Any], name: str, depth: int) -> Any:
        while "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        for key in ("anyOf", "oneOf"):
            if key in schema:
                kinds = [one for one in schema[key] if one.get("type") != "null"]
                return value(kinds[which % len(kinds)], name, depth)
        if "allOf" in schema:
            return value(schema["allOf"][0], name, depth)
        if "const" in schema or "enum" in schema:
            return schema.get("const", schema.get("enum", [None])[0])
        match schema.get("type"):
            case "object":
                fields = schema.get("properties", {})
                needed = set(schema.get("required", []))
                return {
                    key: value(one, key if key != "id" else name or key, depth + 1)
                    for key, one in fields.items()
                    if key in needed or (depth < 4 and names_a_thing(key))
                }
            case "array":
                count = max(1, schema.get("minItems", 1))
                some = [value(schema["items"], name, depth + 1) for _ in range(count)]
                if isinstance(some[0], int) and (table := table_of(name)):
                    return planted.ids.get(table, [1])[:count]
                return some
            case "integer":
                table = table_of(name)
                keys = planted.ids.get(table or "", [])
                return keys[which % len(keys)] if keys else max(1, schema.get("minimum", 1))
            case "number":
                return schema.get("default", max(0.5, schema.get("minimum", 0.5)))
            case "boolean":
                return False
            case "string":
                if name in ("sha256", "source", "image", "control", "hash"):
                    return sorted(planted.hashes)[which]
                slugs = planted.slugs.get(table_of(name) or "", ["a fox"])
                return slugs[which % len(slugs)]
        return None

    return value(schema, "", 0)


def names_a_thing(key: str) -> bool:
    """True for fields of bodies that name a thing, and for those around them."""
    return table_of(key) is not None or key in AROUND


AROUND = {"request", "adapters", "datasets", "candidates", "sources", "source", "columns", "rows",
          "sha256", "image", "control", "references", "images", "prompt_set"}  # fmt: skip


def table_of(key: str) -> str | None:
    """The table of the things that a field of this name names."""
    plain = key.removesuffix("_ids").removesuffix("_id").rstrip("s")
    if key in NAMES:
        return NAMES[key]
    known = {"adapter", "dataset", "run", "render", "grid", "image", "recipe", "prompt_set",
             "base_model", "caption_model", "sweep", "blind_test"}  # fmt: skip
    if plain in known:
        return plain
    return {"base": "base_model", "preset": "own_preset", "parent": "run", "set": "prompt_set",
            "version": "adapter_version", "test": "blind_test", "model": "caption_model",
            "candidate": "adapter"}.get(plain)  # fmt: skip
