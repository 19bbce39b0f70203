"""A stand-in for the Hugging Face Hub: a real HTTP server that answers its client as the Hub does.

It knows what huggingface_hub 2.4 calls: model info, tree, resolve (a redirect to a second host for
files in large-file storage, with ranges), whoami, create, delete, preupload, LFS batch, PUT,
commit. What is committed to it can be downloaded from it. It can break a line in the middle of a
file, or hold an answer back.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

LARGE = (".safetensors", ".bin", ".ckpt", ".png")
WRITE, READ = "write", "read"
BLOCK = 64 * 1024


# Every request compares the commit, and a base has tens of megabytes.
@functools.lru_cache(maxsize=64)
def sha256(content: bytes) -> str:
    """The hash of a large file."""
    return hashlib.sha256(content).hexdigest()


@functools.lru_cache(maxsize=64)
def sha1(content: bytes) -> str:
    """The hash of a file's blob."""
    return hashlib.sha1(content).hexdigest()


@dataclass
class Repo:
    """A repository with one commit at a time."""

    files: dict[str, bytes]
    private: bool = False
    gated: bool = False

    @property
    def commit(self) -> str:
        """Changes with every byte, as a commit does."""
        digest = hashlib.sha1()
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + sha256(content).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Asked:
    """A request that came in."""

    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Hub:
    """The state of the stand-in; tests fill and look at it."""

    url: str = ""
    files_url: str = ""  # large files lie on another host, where no token belongs
    repos: dict[str, Repo] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)  # token -> what it may
    user: str = "ada"
    asked: list[Asked] = field(default_factory=list)
    uploaded: dict[str, bytes] = field(default_factory=dict)  # large files by their hash
    cuts: dict[str, int] = field(default_factory=dict)  # the next answer breaks after so many bytes
    damage: set[str] = field(default_factory=set)
    trouble: int = 0  # so many answers of the file server are 503
    hold_after: dict[str, int] = field(default_factory=dict)  # sends so much, then waits for `go`
    holds: set[str] = field(
        default_factory=set
    )  # requests with one in their path wait, or for `go`
    keeps: bool = False  # no token may delete
    go: threading.Event = field(default_factory=threading.Event)

    def add_folder(self, name: str, folder: Path, **options: Any) -> Repo:
        """A repository with the files of a folder."""
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        return self.add(name, files, **options)

    def add(self, name: str, files: dict[str, bytes], **options: Any) -> Repo:
        """A repository with these files."""
        self.repos[name] = Repo(files, **options)
        return self.repos[name]

    def gets(self, ending: str) -> list[Asked]:
        """Which bodies of the files with this ending were asked of the file server."""
        return [
            row
            for row in self.asked
            if row.method == "GET" and row.path.startswith("/cdn/") and row.path.endswith(ending)
        ]


class Refused(Exception):
    """An answer with an error."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@contextmanager
def open_hub() -> Iterator[Hub]:
    """A stand-in at work on a port of its own."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.files_url = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _serve(self) -> None:
        split = urlsplit(self.path)
        header = self.headers.get("authorization", "")
        self.token = header.removeprefix("Bearer ") if header else None
        self.state.asked.append(
            Asked(self.command, unquote(split.path), self.headers.get("range"), self.token)
        )
        self.query = parse_qs(split.query)
        self.body = self._read_body()
        while any(part in split.path for part in list(self.state.holds)):
            if self.state.go.wait(0.05):
                break
        try:
            for method, pattern, answer in ROUTES:
                found = re.fullmatch(pattern, split.path)
                if found and self.command in method:
                    answer(self, *(unquote(part) for part in found.groups()))
                    return
            raise Refused(404, "EntryNotFound", f"no such place: {self.command} {split.path}")
        except Refused as refused:
            self._json({"error": refused.message}, refused.status, refused=refused)

    def _read_body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _json(self, content: Any, status: int = 200, *, refused: Refused | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if refused is not None and refused.code:
            self.send_header("x-error-code", refused.code)
        if refused is not None and refused.message:
            self.send_header("x-error-message", refused.message)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # who asks, and what for

    def _rights(self) -> str | None:
        if self.token is None:
            return None
        if self.token not in self.state.tokens:
            raise Refused(401, "", "Invalid credentials in Authorization header")
        return self.state.tokens[self.token]

    def _repo(self, name: str, revision: str | None = None) -> Repo:
        rights = self._rights()
        repo = self.state.repos.get(name)
        if repo is None or (repo.private and rights is None):
            raise Refused(404 if rights else 401, "RepoNotFound", "Repository not found")
        if revision not in (None, "main", repo.commit):
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo

    # reading

    def info(self, name: str, revision: str | None = None) -> None:
        """`GET /api/models/…?blobs=true`."""
        repo = self._repo(name, revision)
        with_sizes = "blobs" in self.query
        self._json(
            {
                "_id": "1",
                "id": name,
                "modelId": name,
                "sha": repo.commit,
                "private": repo.private,
                "gated": "auto" if repo.gated else False,
                "tags": [],
                "siblings": [
                    {"rfilename": path} | (_blob(path, content) if with_sizes else {})
                    for path, content in repo.files.items()
                ],
                "cardData": _front_matter(repo.files.get("README.md", b"")),
            }
        )

    def tree(self, name: str, revision: str) -> None:
        """`GET /api/models/…/tree/…?recursive=true`: every file with its hashes."""
        rows = []
        for path, content in self._repo(name, revision).files.items():
            row = _blob(path, content)
            large = {"oid": row["lfs"]["sha256"], **row["lfs"]} if "lfs" in row else None
            found = {"type": "file", "path": path, "size": len(content), "oid": row["blobId"]}
            rows.append(found | ({"lfs": large} if large else {}))
        self._json(rows)

    def resolve(self, name: str, revision: str, path: str) -> None:
        """`GET /owner/name/resolve/revision/path`: the bytes, or where they lie."""
        repo = self._repo(name, revision)
        if repo.gated and self._rights() is None:
            raise Refused(401, "GatedRepo", f"Access to model {name} is restricted.")
        if path not in repo.files:
            raise Refused(404, "EntryNotFound", "Entry not found")
        content = repo.files[path]
        if not path.endswith(LARGE):
            etag = sha1(content)
            self._bytes(path, content, {"x-repo-commit": repo.commit, "etag": f'"{etag}"'})
            return
        self.send_response(302)
        self.send_header("location", f"{self.state.files_url}/cdn/{name}/{path}")
        self.send_header("x-repo-commit", repo.commit)
        self.send_header("x-linked-size", str(len(content)))
        self.send_header("x-linked-etag", f'"{sha256(content)}"')
        self.send_header("content-length", "0")
        self.end_headers()

    def cdn(self, name: str, path: str) -> None:
        """The host of large files."""
        if self.state.trouble:
            self.state.trouble -= 1
            raise Refused(503, "", "try later")
        self._bytes(path, self.state.repos[name].files[path])

    def _bytes(self, path: str, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range") or "")
        start = int(asked[1]) if asked else 0
        if path in self.state.damage:
            content = content[:-1] + bytes([content[-1] ^ 1])
        part = content[start:]
        self.send_response(206 if asked else 200)
        self.send_header("content-length", str(len(part)))
        self.send_header("accept-ranges", "bytes")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if asked:
            self.send_header("content-range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        with suppress(ConnectionError):
            self._send(path, part)

    def _send(self, path: str, part: bytes) -> None:
        cut = self.state.cuts.pop(path, None)
        hold = self.state.hold_after.pop(path, None)
        for at in range(0, len(part), BLOCK):
            if cut is not None and at >= cut:
                self.close_connection = True
                self.connection.close()
                return
            if hold is not None and at >= hold:
                self.state.go.wait(60)
                hold = None
            self.wfile.write(part[at : at + BLOCK])

    # writing

    def whoami(self) -> None:
        """`GET /api/whoami-v2`."""
        if self._rights() is None:
            raise Refused(401, "", "Invalid username or password.")
        self._json({"type": "user", "name": self.state.user, "orgs": []})

    def create(self) -> None:
        """`POST /api/repos/create`."""
        self._require_write()
        wanted = json.loads(self.body)
        owner = wanted.get("organization") or self.state.user
        if owner != self.state.user:
            raise Refused(403, "", f"You don't have the rights to create a model under {owner}")
        name = f"{owner}/{wanted['name']}"
        if name in self.state.repos:
            self._json({"error": "You already created this model repo", "url": self._at(name)}, 409)
            return
        self.state.add(name, {}, private=wanted.get("visibility") == "private")
        self._json({"url": self._at(name), "name": name, "id": "1"})

    def delete(self) -> None:
        """`DELETE /api/repos/delete`."""
        self._require_write()
        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or self.state.user}/{wanted['name']}"
        self._repo(name)
        if self.state.keeps:
            raise Refused(403, "", "This token may not delete")
        del self.state.repos[name]
        self._json({})

    def _at(self, name: str) -> str:
        return f"{self.state.url}/{name}"

    def _require_write(self) -> None:
        rights = self._rights()
        if rights is None:
            raise Refused(401, "", "Invalid username or password.")
        if rights != WRITE:
            raise Refused(403, "", "This token has no right to write")

    def validate(self) -> None:
        """`POST /api/validate-yaml`: the front matter of a model card."""
        content = json.loads(self.body)["content"].encode()
        bad = _front_matter(content) is None
        self._json({"errors": [{"message": "bad YAML"}] if bad else [], "warnings": []}, 200)

    def preupload(self, name: str, _revision: str) -> None:
        """`POST /api/models/…/preupload/…`: which files go to large-file storage."""
        self._require_write()
        self._repo(name)
        files = [
            {
                "path": row["path"],
                "uploadMode": "lfs" if row["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
            }
            for row in json.loads(self.body)["files"]
        ]
        self._json({"files": files})

    def batch(self, _name: str) -> None:
        """`POST /….git/info/lfs/objects/batch`: where each large file is to be put."""
        self._require_write()
        objects = []
        for row in json.loads(self.body)["objects"]:
            there = row["oid"] in self.state.uploaded
            upload = {"href": f"{self.state.files_url}/lfs/{row['oid']}"}
            objects.append(row | ({} if there else {"actions": {"upload": upload}}))
        self._json({"transfer": "basic", "objects": objects})

    def put(self, oid: str) -> None:
        """`PUT` of a large file."""
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "", "other bytes than announced")
        self.state.uploaded[oid] = self.body
        self._json({})

    def commit(self, name: str, _revision: str) -> None:
        """`POST /api/models/…/commit/…`: lines of JSON."""
        self._require_write()
        repo = self._repo(name)
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                repo.files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                repo.files[value["path"]] = self.state.uploaded[value["oid"]]
            elif entry["key"] == "deletedFile":
                del repo.files[value["path"]]
        self._json(
            {"commitUrl": f"{self._at(name)}/commit/{repo.commit}", "commitOid": repo.commit}
        )


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", rf"/api/models/{NAME}", _Handler.info),
    ("GET", rf"/api/models/{NAME}/revision/([^/]+)", _Handler.info),
    ("GET", rf"/api/models/{NAME}/tree/([^/]+)", _Handler.tree),
    ("GET HEAD", rf"/{NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
    ("GET HEAD", rf"/cdn/{NAME}/(.+)", _Handler.cdn),
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/repos/create", _Handler.create),
    ("DELETE", "/api/repos/delete", _Handler.delete),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("POST", rf"/api/models/{NAME}/preupload/([^/]+)", _Handler.preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/lfs/(\w+)", _Handler.put),
    ("POST", rf"/api/models/{NAME}/commit/([^/]+)", _Handler.commit),
]


def _blob(path: str, content: bytes) -> dict[str, Any]:
    row: dict[str, Any] = {"size": len(content), "blobId": sha1(content)}
    if path.endswith(LARGE):
        row["lfs"] = {"sha256": sha256(content), "size": len(content), "pointerSize": 130}
    return row


def _front_matter(readme: bytes) -> dict[str, Any] | None:
    found = re.match(rb"---\n(.*?)\n---\n", readme, re.DOTALL)
    content = yaml.safe_load(found[1]) if found else None
    return content if isinstance(content, dict) else None
