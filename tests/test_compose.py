"""The compose file, the image and the example settings name only what exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.cli.main import build_parser, settings_from
from app.cli.migrate import migrate
from app.registry.config import DEFAULT_PORT, SECRETS, Settings
from app.registry.storage.bucket import ObjectBlobStore
from app.registry.storage.store import StorageUnavailable
from tests.conftest import AppMaker
from tests.docs.pages import DOCS, rows, section

ROOT = Path(__file__).parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "brushwork"}
SETTINGS = {f"BRUSHWORK_{name.upper()}" for name in Settings.model_fields}
VARIABLE = re.compile(r"BRUSHWORK_[A-Z_]+")


def environment_of(service: dict[str, Any]) -> dict[str, str]:
    """The variables with what an untouched `.env` would make of them."""
    environment = service.get("environment", {})
    return {name: _interpolated(str(value)) for name, value in environment.items()}


def _interpolated(value: str) -> str:
    value = re.sub(r"\$\{[A-Z_]+:?\?[^}]*\}", "secret", value)
    return re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", value)


def test_every_part_of_the_design_has_a_service() -> None:
    commands = {tuple(service["command"][:3]) for service in OURS.values()}
    assert {("worker", "--queue", queue) for queue in ("train", "render", "io")} < commands
    assert ("migrate",) in commands
    assert SERVICES["redis"]["image"].startswith("redis:")
    assert SERVICES["postgres"]["image"].startswith("postgres:")


@pytest.mark.parametrize("name", OURS)
def test_the_command_is_one_the_program_knows(name: str) -> None:
    arguments = build_parser().parse_args(OURS[name]["command"])
    assert (ROOT / "app" / "cli" / f"{arguments.module}.py").exists()


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_and_valid(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = environment_of(OURS[name])
    ours = {key for key in environment if key.startswith("BRUSHWORK_")}
    assert ours <= SETTINGS
    for key in ours:
        monkeypatch.setenv(key, environment[key])
    settings = settings_from(build_parser().parse_args(OURS[name]["command"]))
    assert settings.password == SecretStr("secret")
    assert settings.sqlalchemy_url.startswith("postgresql+psycopg://brushwork:secret@postgres:")


@pytest.mark.parametrize("file", ["docker-compose.yml", "Dockerfile", ".env.example"])
def test_every_variable_named_anywhere_is_a_setting(file: str) -> None:
    named = set(VARIABLE.findall((ROOT / file).read_text()))
    assert {name.rstrip("_") for name in named} <= SETTINGS


def test_the_example_settings_name_every_setting() -> None:
    assert set(VARIABLE.findall((ROOT / ".env.example").read_text())) == SETTINGS


def test_every_documented_variable_of_a_bucket_is_passed_on_and_in_the_example() -> None:
    table = rows(section(DOCS / "deployment.md", "Storage in a bucket"))
    documented = {variable.strip("`") for variable, _, _ in table}
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT"} < documented
    for service in OURS.values():
        passed = {name: value for name, value in service["environment"].items() if "AWS_" in name}
        # without a value: an empty one would count as a key
        assert passed == dict.fromkeys(documented)
    assert set(re.findall(r"^#(AWS_\w+)=", (ROOT / ".env.example").read_text(), re.M)) == documented
    assert {name for name in documented if re.search("KEY|TOKEN", name)} <= set(SECRETS)


def test_the_storage_reads_the_documented_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
        "AWS_REGION": "auto",
        "AWS_ENDPOINT": "http://127.0.0.1:1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "false",
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageUnavailable) as raised:  # nobody listens there
        ObjectBlobStore("s3://bucket/prefix", retries=0).stat("0" * 64)
    assert "127.0.0.1:1" in str(raised.value.__cause__)


def test_passwords_have_no_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert "${BRUSHWORK_PASSWORD?" in text  # may be nothing, with accounts
    assert "${POSTGRES_PASSWORD:?" in text
    assert not re.search(r"PASSWORD:-", text)


@pytest.mark.parametrize("name", OURS)
def test_urls_lead_to_services_on_the_ports_they_have(name: str) -> None:
    ports = {"postgres": 5432, "redis": 6379}
    environment = environment_of(OURS[name])
    for key in ("BRUSHWORK_DATABASE_URL", "BRUSHWORK_BROKER_URL"):
        url = urlsplit(environment[key])
        assert url.port == ports[str(url.hostname)]


def test_the_published_port_is_the_one_web_listens_on() -> None:
    web = SERVICES["web"]
    published, inside = _interpolated(web["ports"][0]).rsplit(":", 1)
    arguments = build_parser().parse_args(web["command"])
    assert int(inside) == arguments.port == DEFAULT_PORT
    assert published == f"127.0.0.1:{DEFAULT_PORT}"
    assert f"EXPOSE {DEFAULT_PORT}" in (ROOT / "Dockerfile").read_text()


def test_the_health_check_asks_a_route_that_answers_without_a_password(
    tmp_path: Path, make_app: AppMaker
) -> None:
    text = " ".join(SERVICES["web"]["healthcheck"]["test"])
    url = urlsplit(re.findall(r"http://[^']+", text)[0])
    arguments = build_parser().parse_args(SERVICES["web"]["command"])
    assert url.port == arguments.port
    hosts = environment_of(SERVICES["web"])["BRUSHWORK_ALLOWED_HOSTS"]
    settings = Settings(
        host="0.0.0.0", password=SecretStr("x"), data_dir=tmp_path, allowed_hosts=hosts
    )
    migrate(settings)
    with TestClient(make_app(settings), base_url=f"http://{url.netloc}") as client:
        assert client.get("/").status_code == 401
        assert client.get(url.path).status_code == 200


@pytest.mark.parametrize("queue", ["train", "render", "io"])
def test_a_workers_health_check_looks_for_that_worker(queue: str) -> None:
    services = [one for one in OURS.values() if one["command"][1:] == ["--queue", queue]]
    assert services
    for service in services:
        program, *command = service["healthcheck"]["test"][1:]
        assert program == "brushwork"
        arguments = build_parser().parse_args(command)
        assert (arguments.command, arguments.queue) == ("doctor", queue)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_that_stays_has_a_health_check_and_an_init(name: str) -> None:
    service = SERVICES[name]
    assert service["init"] is True
    assert "healthcheck" in service or service["restart"] == "no"


@pytest.mark.parametrize("name", OURS)
def test_a_worker_has_time_to_save_a_checkpoint(name: str) -> None:
    assert OURS[name]["stop_grace_period"] == "120s"


@pytest.mark.parametrize("name", SERVICES)
def test_volumes_and_dependencies_are_declared(name: str) -> None:
    service = SERVICES[name]
    volumes = {_interpolated(volume).split(":")[0] for volume in service.get("volumes", [])}
    assert volumes <= set(COMPOSE["volumes"])
    assert set(service.get("depends_on", {})) <= set(SERVICES)


def test_train_workers_have_one_gpu_each() -> None:
    trainers = [one for one in OURS.values() if one["command"][1:] == ["--queue", "train"]]
    devices = [one["environment"]["CUDA_VISIBLE_DEVICES"] for one in trainers]
    assert len(set(devices)) == len(devices) > 0
    for device in devices:
        assert device.isdigit()


def test_redis_keeps_hints_and_evicts_none() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_the_image_copies_what_the_program_needs_and_runs_as_nobody_special() -> None:
    text = (ROOT / "Dockerfile").read_text()
    for folder in ("app", "worker", "migrations", "static", "templates"):
        assert f"COPY {folder} ./{folder}" in text
        assert (ROOT / folder).is_dir()
    assert text.index("USER brushwork") < text.index("ENTRYPOINT")
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert ".env" in ignored
    assert not {"app", "worker", "migrations", "static", "templates", "LICENSE"} & set(ignored)
