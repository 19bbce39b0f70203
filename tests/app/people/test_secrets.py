"""No secret of people is left in the data folder, a backup, logs, processes or pages."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import tarfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa

from app.cli.main import main
from app.registry.actor import Role
from app.registry.config import Settings
from app.registry.db import Database, Session, make_engine
from app.registry.people import service as people
from app.registry.tables.people import User
from tests.app.access.test_rights import read_table
from tests.app.cli.conftest import ROOT
from tests.app.people.canaries import SKIPPED

START_SECONDS = 60.0
LISTENING = re.compile(r"^Listening at (http://\S+)$", re.MULTILINE)
FEWEST = 16  # characters of a secret that tell it
BROKEN = """
CREATE TRIGGER broken BEFORE UPDATE ON user_account WHEN NEW.password_hash IS NOT OLD.password_hash
BEGIN SELECT RAISE(ABORT, 'broken'); END
"""


def test_an_error_of_the_database_tells_no_values(database: Database) -> None:
    secret = "$argon2id$v=19$a-hash-of-somebody"
    with database.write() as session:
        people.add_user(session, "Eva", Role.ADMIN).password_hash = secret
    for name, name_key in (("Other", "eva"), (None, "other")):  # taken, and not complete
        user = User(name=name, name_key=name_key, password_hash=secret)  # type: ignore[arg-type]
        with pytest.raises(sa.exc.IntegrityError) as raised, database.write() as session:
            session.add(user)
        told = "".join(traceback.format_exception(raised.value))
        assert "user_account" in told
        assert secret not in told


def forms_of(secret: str) -> set[bytes]:
    """A secret as it may stand somewhere: as it is, cut, in a URL, in base64 at any place."""
    raw = secret.encode()
    found = {raw, quote(secret, safe="").encode(), raw.hex().encode()}
    found |= {raw[:FEWEST], raw[-FEWEST:]} if len(raw) > FEWEST else set()
    for before in range(3):
        coded = base64.b64encode(b"x" * before + raw).rstrip(b"=")
        found.add(coded[-(-before * 4 // 3) + (before > 0) : -2])
    return found


def secrets_in(content: bytes, secrets: dict[str, str]) -> set[str]:
    """The names of the secrets that bytes give away."""
    return {name for name, one in secrets.items() if any(form in content for form in forms_of(one))}


@pytest.mark.parametrize("code", [
    str, lambda one: quote(one, safe=""), lambda one: one.encode().hex(), lambda one: one[:20],
    lambda one: base64.b64encode(one.encode()).decode(),
    lambda one: base64.b64encode(f"Eva:{one}".encode()).decode(),
    lambda one: base64.b64encode(f"me:{one}!".encode()).decode(),
    lambda one: base64.b64encode(f"a:{one} ".encode()).decode(),
])  # fmt: skip
def test_a_secret_is_found_however_it_is_written(code: object) -> None:
    secret = "Grün/otter?+lantern 7041"
    assert callable(code)
    assert secrets_in(f"a line with {code(secret)}.".encode(), {"it": secret}) == {"it"}
    assert secrets_in(code("another text of this length").encode(), {"it": secret}) == set()


@contextmanager
def web_server(data_dir: Path, log: Path) -> Iterator[tuple[str, int]]:
    """The address and the process id of `brushwork web` with accounts and a proxy that names."""
    clean = {key: one for key, one in os.environ.items() if not key.startswith("BRUSHWORK_")}
    environment = clean | {
        "BRUSHWORK_ACCOUNTS": "on",
        "BRUSHWORK_IDENTITY_HEADER": "Remote-User",
        "BRUSHWORK_IDENTITY_PROXIES": "127.0.0.1",
        "BRUSHWORK_LOG_LEVEL": "DEBUG",
    }
    command = [sys.executable, "-m", "app", "web", "--port", "0", "--data-dir", str(data_dir)]
    with log.open("wb") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said)
    try:
        until = time.monotonic() + START_SECONDS
        while (found := LISTENING.search(log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield found.group(1), process.pid
    finally:
        process.terminate()
        process.wait(START_SECONDS)


class Visits:
    """Requests to a server; the answers are kept, and the secrets that were sent or shown once."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.secrets: dict[str, str] = {}
        self.answers: list[tuple[str, bytes, set[str]]] = []  # with secrets that they may show

    def browser(self, **headers: str) -> httpx.Client:
        """Somebody's browser."""
        usual = {"accept": "text/html", "connection": "close"}  # as after an error of the server
        return httpx.Client(base_url=self.url, headers=usual | headers, timeout=60)

    def ask(
        self, client: httpx.Client, method: str, path: str, *shown: str, status: int, **sent: object
    ) -> httpx.Response:
        """An answer of this status, which may show these secrets."""
        answer = client.request(method, path, **sent)  # type: ignore[arg-type]
        assert answer.status_code == status, (method, path, answer.text[:500])
        head = "\n".join(f"{key}: {one}" for key, one in answer.headers.items())
        asked = {name for name, one in self.secrets.items() if one in path}
        self.answers.append((f"{method} {path}", head.encode() + answer.content, {*shown, *asked}))
        return answer


def exercise(visits: Visits, link: str, data_dir: Path) -> httpx.Client:
    """Use every kind of secret, in the right and in wrong ways; a browser of Eva."""
    secrets, ask, eva = visits.secrets, visits.ask, visits.browser()
    secrets |= {
        "password": "otter lantern 7041 of eva",
        "new password": "Grün/marble+copper 3355?",
        "wrong password": "thimble gravel 9917 wrong",
        "typed as a name": "walnut picnic 2206 name",
        "by the proxy": "pebble antler 4472 proxy",
        "any hash": "$argon2id$",
        "link": link.rpartition("/")[2],
    }
    path = f"/invite/{secrets['link']}"
    ask(eva, "GET", path, status=200)
    ask(eva, "POST", path, status=422, data={"password": "short words"})
    ask(eva, "POST", path, "session", status=303, data={"password": secrets["password"]})
    ask(eva, "POST", path, status=410, data={"password": secrets["wrong password"]})
    name = {"name": "Eva"}
    wrong = {**name, "password": secrets["wrong password"]}
    ask(eva, "POST", "/login", status=403, data=wrong)
    typed = {"name": secrets["typed as a name"], "password": secrets["password"]}
    ask(eva, "POST", "/login", "typed as a name", status=403, data=typed)
    again = visits.browser()
    right = {**name, "password": secrets["password"]}
    ask(again, "POST", "/login", "session", "known", status=303, data=right)
    for key in again.cookies:
        kind = "session" if "session" in key else "known"
        secrets[kind] = again.cookies[key].rpartition(".")[2]
    assert {"session", "known"} <= secrets.keys()
    of_token = {"name": "program", "scope": "admin"}
    page = ask(eva, "POST", "/account/tokens", "token", status=200, data=of_token)
    secrets["token"] = re.findall(r"bw_[\w-]{20,}", page.text)[0]
    token = secrets["token"]
    program = visits.browser(accept="application/json", authorization=f"Bearer {token}")
    ask(program, "GET", "/api/v1/people", status=200)
    basic = visits.browser(accept="application/json")
    basic.auth = ("program", token)
    ask(basic, "GET", "/api/v1/people", status=200)
    basic.auth = ("Eva", secrets["password"])  # never the password
    ask(basic, "GET", "/api/v1/people", status=401)
    stranger = visits.browser()
    ask(stranger, "GET", f"/datasets?token={token}", status=303)
    ask(stranger, "GET", "/datasets", "by the proxy", status=403,
        headers={"remote-user": secrets["by the proxy"]})  # fmt: skip
    for number, person in enumerate(("Ben", "Cam")):
        made = ask(program, "POST", "/api/v1/people", f"link {number}", status=201,
                   json={"name": person}, headers={"idempotency-key": f"key-{number}"})  # fmt: skip
        secrets[f"link {number}"] = made.json()["link"].rpartition("/")[2]
    page = ask(eva, "POST", "/people/3/reset", "link 2", status=200)
    secrets["link 2"] = re.findall(r"/invite/([\w-]+)", page.text)[0]
    change = {"old_password": secrets["wrong password"], "password": secrets["new password"]}
    ask(eva, "POST", "/account/password", status=422, data=change)
    database = Database(make_engine(Settings(data_dir=data_dir).sqlalchemy_url))
    with database.write() as session:
        session.connection().exec_driver_sql(BROKEN)
    change["old_password"] = secrets["password"]
    ask(eva, "POST", "/account/password", status=500, data=change)
    with database.write() as session:
        session.connection().exec_driver_sql("DROP TRIGGER broken")
        secrets["old hash"] = salt_and_hash(session)
    ask(eva, "POST", "/account/password", "known", status=303, data=change)
    with database.read() as session:
        secrets["hash"] = salt_and_hash(session)
    database.dispose()
    return eva


def salt_and_hash(session: Session) -> str:
    """What only the hash of Eva's password has."""
    return str(session.get_one(User, 1).password_hash).split("$", 4)[-1]


def places(data_dir: Path, archive: Path, log: Path, pid: int) -> dict[str, bytes]:
    """All that a server leaves behind, by where it is."""
    found = {f"data/{one.relative_to(data_dir)}": one.read_bytes()
             for one in sorted(data_dir.rglob("*")) if one.is_file()}  # fmt: skip
    with tarfile.open(archive) as backup:
        for member in backup:
            if content := backup.extractfile(member):
                found[f"backup/{member.name}"] = content.read()
    found["log"] = log.read_bytes()
    for name in ("cmdline", "environ"):
        of_children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (str(pid), *of_children):
            found[f"process {one} {name}"] = Path(f"/proc/{one}/{name}").read_bytes()
    return found


@pytest.mark.process
def test_no_secret_is_left_anywhere(
    tmp_path: Path, sqlite_template: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data_dir, archive, log = tmp_path / "data", tmp_path / "copy.tar", tmp_path / "log"
    data_dir.mkdir()
    (data_dir / "brushwork.db").write_bytes(sqlite_template.read_bytes())
    on_data = ["--data-dir", str(data_dir)]
    assert main(["users", "invite", "Eva", "--role", "admin", *on_data]) == 0
    printed = capfd.readouterr()
    link = re.findall(r"http://\S+/invite/\S+", printed.out)[0]
    with web_server(data_dir, log) as (url, pid):
        visits = Visits(url)
        eva = exercise(visits, link, data_dir)
        for row in read_table("routes.csv"):
            if row["method"] == "GET" and "{" not in row["path"] and row["path"] not in SKIPPED:
                answer = eva.get(row["path"])
                visits.answers.append((row["path"], answer.content, set()))
        assert main(["backup", str(archive), *on_data]) == 0
        said = capfd.readouterr()
        found = places(data_dir, archive, log, pid)
    found["errors of commands"] = (printed.err + said.out + said.err).encode()
    leaks = [(place, told) for place, content in found.items()
             if (told := secrets_in(content, visits.secrets) - of_database(place))]  # fmt: skip
    leaks += [(asked, told) for asked, content, shown in visits.answers
              if (told := secrets_in(content, visits.secrets) - shown)]  # fmt: skip
    assert not leaks, leaks
    where_it_looked(found, visits)


def of_database(place: str) -> set[str]:
    """The database has the hashes of passwords; its log keeps the last one for some time."""
    kept = {"hash", "any hash"} | ({"old hash"} if place == "data/brushwork.db-wal" else set())
    return kept if "brushwork.db" in place else set()


def where_it_looked(found: dict[str, bytes], visits: Visits) -> None:
    """What is no secret is found where the secrets are not."""
    told = {"name": "Cam", "refused": "login refused", "error": "broken", "option": "--data-dir",
            "setting": "BRUSHWORK_IDENTITY_HEADER", "hash": visits.secrets["hash"]}  # fmt: skip
    seen = {place: {name for name, one in told.items() if one.encode() in content}
            for place, content in found.items()}  # fmt: skip
    assert {"refused", "error"} <= seen["log"]
    assert {"name", "hash"} <= seen["backup/brushwork.db"]
    assert {"name", "hash"} <= seen["data/brushwork.db"] | seen.get("data/brushwork.db-wal", set())
    assert any("option" in one for place, one in seen.items() if place.endswith("cmdline"))
    assert any("setting" in one for place, one in seen.items() if place.endswith("environ"))
    pages = {asked: content for asked, content, _ in visits.answers}
    assert all(b"Cam" in pages[path] for path in ("/people", "/api/v1/people"))
    assert all(b"password changed" in pages[path] for path in ("/people/log", "/people/log.csv"))
