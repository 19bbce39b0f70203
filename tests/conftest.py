"""Fixtures of the whole suite: a registry on both databases, an app with its client.

What a test needs is imported by the fixture that gives it, so that the tests of the cores run on a
machine without a browser, PostgreSQL or the web front end, and start quickly.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import gc
import os
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import chromium as browsers
from tests import costs
from tests.images import make_png
from tests.lean_collection import lean_collection

if TYPE_CHECKING:
    import sqlalchemy as sa
    from anyio.from_thread import BlockingPortal
    from fastapi import FastAPI
    from fastapi.testclient import TestClient
    from playwright.sync_api import Browser

    from app.registry.config import Settings
    from app.registry.db import Database
    from app.registry.images.decoder import ImageDecoder
    from app.registry.state import AppState
    from app.registry.tables.added_models import BaseModel
    from tests.stack.conftest import Stack
    from tests.worker.runtime.trainer_server import HubServer, TrainerServer
    from worker.core.bases.family import BaseInfo

AppMaker = Callable[["Settings"], "FastAPI"]

POSTGRES = os.environ.get(
    "BRUSHWORK_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432/postgres"
)
# no run is evaluated at its end, but where a test is about that
os.environ["BRUSHWORK_EVALUATE_RUNS"] = "off"
IN_CI = os.environ.get("CI") == "true"

# Read when torch is imported, here and in processes that a test starts. The models are so small
# that threads would spend their time waiting for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the worker does


@pytest.hookimpl(tryfirst=True)  # before `-m` selects by markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test by what it costs; where several processes run them, the longest first."""
    costs.add_markers(items)
    if hasattr(config, "workerinput"):
        costs.sort_longest_first(items)


def pytest_runtest_setup() -> None:
    """A training leaves the number of threads that it had: with several, sums differ by chance."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.hookimpl(optionalhook=True)  # these tests may run without pytest-xdist
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """`-n auto`; None leaves the number to the environment variable of pytest-xdist."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None
    from worker.runtime.device import usable_cores

    return costs.worker_count(usable_cores(), config.option.markexpr)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`, files that share a costly fixture stay in one process too."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class SharedFixtures(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return costs.scope_of(nodeid)

    return SharedFixtures(config, log)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Import the test files at half the cost."""
    with lean_collection():
        return (yield)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file of which `-m unit` selects nothing: many load torch, diffusers and more."""
    return costs.is_left_out(collection_path, config.option.markexpr) or None


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note which file was the first to import each of the libraries that take seconds."""
    for library in costs.NETWORKS & sys.modules.keys():
        costs.loaded_by.setdefault(library, report.nodeid)


def pytest_collection_finish() -> None:
    """Leave what the imports made out of every later search for garbage; it stays to the end.

    And search less often than after 700 new objects, of which a page makes many more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 10)


@pytest.fixture(autouse=True, scope="session")
def no_waits_for_the_disk() -> Iterator[None]:
    """Files are not synced: no test looks at what is left of them after a power failure."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


@pytest.fixture(autouse=True)
def own_process() -> Iterator[None]:
    """Take back what a command that ran in this process changed in it: its actor and umask."""
    umask = os.umask(0o022)
    os.umask(umask)
    yield
    os.umask(umask)
    if actor := sys.modules.get("app.registry.actor"):
        actor.set_process_actor("")


def skip_unless_ci(reason: str) -> None:
    """Skip with the reason shown; in CI what a test needs must be there, so it fails."""
    if IN_CI:
        pytest.fail(reason)
    pytest.skip(reason)


def require_chromium() -> None:
    """Skip without a browser on this machine; in CI there must be one."""
    if browsers.PATH is None:
        skip_unless_ci("no chromium on this machine")


@contextlib.contextmanager
def empty_database(prefix: str, *, is_durable: bool = True) -> Iterator[str]:
    """The URL of an empty database on the PostgreSQL of this machine, dropped at the end."""
    import psycopg

    name = f"{prefix}_{uuid.uuid4().hex[:12]}"
    try:
        server = psycopg.connect(POSTGRES, autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as error:
        skip_unless_ci(f"no PostgreSQL at {POSTGRES}: {error}")
    with server:
        server.execute(f"CREATE DATABASE {name}")
        try:
            if not is_durable:
                server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
            yield f"{POSTGRES.rsplit('/', 1)[0]}/{name}"
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an empty database of this test session on the PostgreSQL of this machine."""
    # no test looks at what is left after a power failure, so no commit waits for the disk
    with empty_database("brushwork_test", is_durable=False) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> Iterator[sa.Engine]:
    """An engine on a migrated PostgreSQL database."""
    from app.registry import migrate
    from app.registry.config import Settings
    from app.registry.db import make_engine

    engine = make_engine(Settings(database_url=postgres_url).sqlalchemy_url)
    migrate.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def compiled_once() -> Iterator[None]:
    """Statements are compiled once for all SQLite files of the session, not once for each."""
    import sqlalchemy as sa

    create_engine = sa.create_engine
    first = create_engine("sqlite://")
    first.connect().close()  # the dialect is ready then
    compiled: dict[Any, Any] = {}

    def with_shared_statements(*args: Any, **options: Any) -> sa.Engine:
        engine = create_engine(*args, **options)
        if engine.dialect.name == "sqlite":
            engine.dialect = first.dialect
            engine.update_execution_options(compiled_cache=compiled)
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sa, "create_engine", with_shared_statements)
        yield
    first.dispose()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory, compiled_once: None) -> Path:
    """A migrated SQLite file that tests copy."""
    from app.registry import migrate
    from app.registry.db import make_engine

    path = tmp_path_factory.mktemp("template") / "brushwork.db"
    engine = make_engine(f"sqlite:///{path}")
    migrate.upgrade(engine)
    close_file(engine)
    return path


@pytest.fixture(scope="session")
def ready_template(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """A SQLite file in which the embedded base is ready, for the tests that copy it."""
    from app.registry.db import Database, make_engine

    path = tmp_path_factory.mktemp("ready") / "brushwork.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(make_engine(f"sqlite:///{path}"))
    make_base_ready(database)
    close_file(database.engine)
    return path


def close_file(engine: sa.Engine) -> None:
    """Dispose of an engine on SQLite with everything in its one file, which can be copied then."""
    with engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.exec_driver_sql("BEGIN")
    engine.dispose()


@pytest.fixture
def sqlite_database(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    """An empty registry on SQLite."""
    from app.registry.db import Database, make_engine

    path = tmp_path / "brushwork.db"
    path.write_bytes(sqlite_template.read_bytes())
    database = Database(make_engine(f"sqlite:///{path}"))
    yield database
    database.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty registry, once on SQLite and once on PostgreSQL."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_database")
        return
    from app.registry.db import Database

    engine: sa.Engine = request.getfixturevalue("migrated_postgres")
    with engine.begin() as connection:
        empty_tables(connection)
    yield Database(engine)


def empty_tables(connection: sa.Connection) -> None:
    """Delete all rows and start all sequences anew: cheaper on few rows than TRUNCATE."""
    from sqlmodel import SQLModel

    import app.registry.tables.all  # noqa: F401  (fills the metadata)

    names = [f'"{table.name}"' for table in reversed(SQLModel.metadata.sorted_tables)]
    filled = " UNION ALL ".join(
        f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})" for name in names
    )
    rows = set(connection.exec_driver_sql(filled).scalars())
    for name in names:
        if name in rows:
            connection.exec_driver_sql(f"DELETE FROM {name}")
    connection.exec_driver_sql(
        "SELECT setval(quote_ident(sequencename)::regclass, start_value, false) "
        "FROM pg_sequences WHERE last_value IS NOT NULL"
    )


@pytest.fixture
def settings(tmp_path: Path, sqlite_template: Path) -> Settings:
    """Settings of an app with an empty registry, without a broker."""
    return make_settings(tmp_path / "data", sqlite_template)


def make_settings(data_dir: Path, sqlite_template: Path) -> Settings:
    """Settings of an app whose registry is a copy of this SQLite file."""
    from app.registry.config import Settings

    data_dir.mkdir(exist_ok=True)
    (data_dir / "brushwork.db").write_bytes(sqlite_template.read_bytes())
    return Settings(
        _env_file=None,
        data_dir=data_dir,
        broker_url=f"filesystem://{data_dir}/broker",
        allowed_hosts="localhost,127.0.0.1",
    )


@pytest.fixture
def ready_base(database: Database) -> None:
    """The embedded base model, registered and looked at."""
    make_base_ready(database)


def make_base_ready(database: Database) -> BaseModel:
    """Register the embedded base and write down what an io worker would find."""
    from app.registry.base_models.service import ensure_embedded
    from app.registry.tables.added_models import ModelStatus

    info = embedded_info()
    with database.write() as session:
        base = ensure_embedded(session)
        base.status = ModelStatus.READY
        base.family = info.family
        base.prediction_type = info.prediction_type
        base.resolution = info.resolution
        base.cross_attention_dim = info.cross_attention_dim
        base.parameters = info.parameters
        base.size_bytes = info.size_bytes
        base.fingerprint = info.fingerprint
        session.add(base)
    return base


def embedded_info() -> BaseInfo:
    """The result of an inspection of the embedded base."""
    from worker.core import starter

    return _inspected(starter.PATH)


@functools.cache
def _inspected(base: Path) -> BaseInfo:
    from worker.core.bases.inspect import inspect_base

    return inspect_base(base)


@pytest.fixture(scope="session")
def decoder() -> Iterator[ImageDecoder]:
    """The decoder of pictures that the tests share: its processes remember nothing."""
    from app.registry.images.decoder import ImageDecoder

    with ImageDecoder() as decoder:
        yield decoder


@pytest.fixture(scope="session")
def small_starter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in place of the embedded one, of few layers and 64 px, whatever that one has."""
    from tests.worker.bases.tiny_models import save_small_starter

    return save_small_starter(tmp_path_factory.mktemp("base") / "starter")


@pytest.fixture(scope="session")
def trainers(small_starter: Path) -> Iterator[TrainerServer]:
    """Trainer processes for all tests of the session, without their imports."""
    from tests.worker.runtime.trainer_server import TrainerServer

    server = TrainerServer(small_starter)
    yield server
    server.close()


@pytest.fixture(scope="session")
def hub_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """Processes that talk to a Hub, without their imports."""
    from tests.worker.runtime.trainer_server import HubServer

    server = HubServer(tmp_path_factory.mktemp("hub"))
    yield server
    server.close()


@pytest.fixture
def forked_hub(hub_server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders to the Hub are carried out by forks; a worker that a test starts does without."""
    from worker.runtime import hub_jobs

    monkeypatch.setattr(hub_jobs, "COMMAND", hub_server.command)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack: the examples of the documentation use it first, then tests/stack."""
    from tests.stack.conftest import open_stack

    with open_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest.fixture(scope="session")
def routed_app(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path
) -> Iterator[FastAPI]:
    """The web app, made once because its routes take longest; `app` gives it a state."""
    from app.web.main import create_app

    application = create_app(make_settings(tmp_path_factory.mktemp("routes"), sqlite_template))
    unused = application.state.brushwork
    yield application
    unused.wakeups.close()
    unused.database.dispose()


@pytest.fixture(scope="session")
def make_app(routed_app: FastAPI) -> AppMaker:
    """A function: the app that `create_app` makes with these settings, on the routes made once.

    A client's lifespan closes it.
    """
    from starlette.datastructures import State

    from app.web.main import use_settings

    def make(settings: Settings) -> FastAPI:
        application = copy.copy(routed_app)
        application.state, application.user_middleware = State(), []
        application.middleware_stack = None
        use_settings(application, settings)
        return application

    return make


@pytest.fixture
def app(
    routed_app: FastAPI, settings: Settings, ready_template: Path, decoder: ImageDecoder
) -> Iterator[FastAPI]:
    """The web app on an empty registry in which the embedded base is ready."""
    from app.registry.state import make_state

    (settings.data_dir / "brushwork.db").write_bytes(ready_template.read_bytes())
    state = dataclasses.replace(make_state(settings), decoder=decoder)
    routed_app.state.brushwork = state
    yield routed_app
    del routed_app.state.brushwork
    state.wakeups.close()
    state.database.dispose()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """This machine's browser, shared by the tests of a file."""
    require_chromium()
    with browsers.open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    """One event loop with its threads for the requests of all tests, as a server has."""
    from anyio.from_thread import start_blocking_portal

    with start_blocking_portal() as portal:
        yield portal


@pytest.fixture
def client(app: FastAPI, portal: BlockingPortal) -> TestClient:
    """A client that answers as the server would: errors are answers, not exceptions.

    Every answer of the REST API is compared with its OpenAPI description.
    """
    from fastapi.testclient import TestClient

    from tests.documented import check_answer

    client = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
    client.portal = portal  # else each request starts a loop and a thread
    client.event_hooks["response"].append(lambda response: check_answer(app, response))
    return client


@pytest.fixture
def state(app: FastAPI) -> AppState:
    """The state behind `client`."""
    state: AppState = app.state.brushwork
    return state


@pytest.fixture
def png() -> Callable[..., bytes]:
    """A function that makes a small PNG; other numbers, other pictures."""
    return make_png
