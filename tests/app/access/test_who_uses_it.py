"""A server that others can use has features off and needs a longer password."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr, ValidationError

from app.registry.actor import acting_as, actor_text, current_actor, set_process_actor
from app.registry.added_models.service import allowed_folders
from app.registry.config import Settings
from app.registry.hub_source import is_allowed
from app.supervisor.address import AddressError, check_exposure, exposure_hints
from tests.app.access.conftest import PASSWORD
from tests.conftest import AppMaker

LOCAL = "localhost,127.0.0.1,[::1]"


def settings_with(**values: object) -> Settings:
    if isinstance(password := values.get("password"), str):
        values["password"] = SecretStr(password)
    return Settings(_env_file=None, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1"}, True),
        ({"host": "127.0.0.2", "allowed_hosts": "127.0.0.2, here.localhost"}, True),
        ({"start_token": True}, True),
        ({"password": ""}, True),
        ({"password": PASSWORD}, False),
        ({"host": "0.0.0.0", "password": PASSWORD}, False),
        ({"allowed_hosts": f"{LOCAL},brushwork.example"}, False),
        ({"allowed_hosts": "*"}, False),
        ({"allowed_hosts": "192.0.2.1"}, False),
        ({"allowed_hosts": "localhost.example"}, False),
    ],
)
def test_paths_and_the_hub_are_free_only_where_nobody_else_uses_it(
    values: dict[str, object], expected: bool, tmp_path: Path
) -> None:
    settings = settings_with(**values)
    assert settings.is_private is expected
    assert is_allowed(settings) is expected
    assert allowed_folders(settings) == (None if expected else [])
    opened = settings_with(**values, model_folders=str(tmp_path), hub="on")
    assert is_allowed(opened)
    assert allowed_folders(opened) == [tmp_path]


def test_behind_a_proxy_no_path_tells_whether_it_exists(
    make_app: AppMaker, settings: Settings
) -> None:
    changed = settings.model_copy(
        update={"password": SecretStr(PASSWORD), "allowed_hosts": "brushwork.example"}
    )
    with TestClient(make_app(changed), base_url="http://brushwork.example") as client:
        client.auth = ("me", PASSWORD)
        answers = [
            client.post("/api/v1/base-models", json={"source": source}).json()["detail"]
            for source in ("/root/.ssh/nothing", "/etc/passwd", "/root")
        ]
        hub = client.post("/api/v1/base-models", json={"source": "acme/tiny"})
    assert len(set(answers)) == 1
    assert "BRUSHWORK_MODEL_FOLDERS" in answers[0]
    assert hub.status_code == 403
    assert "BRUSHWORK_HUB=on" in hub.json()["detail"]


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ({"password": "seven77"}, False),
        ({"password": "seven77", "host": "0.0.0.0"}, True),
        ({"password": "eight888", "host": "0.0.0.0"}, False),
        ({"password": "päßwörter"[:8], "host": "0.0.0.0"}, False),
        ({"password": "seven77", "allowed_hosts": "brushwork.example"}, True),
        ({"password": "", "host": "0.0.0.0"}, True),
        ({"allowed_hosts": "brushwork.example"}, False),
    ],
)
def test_a_password_that_others_can_try_has_eight_characters(
    values: dict[str, object], refused: bool
) -> None:
    settings = settings_with(**values)
    if refused:
        with pytest.raises(AddressError, match="BRUSHWORK_PASSWORD"):
            check_exposure(settings)
    else:
        check_exposure(settings)


def test_the_start_says_what_is_off_and_what_is_weak() -> None:
    assert exposure_hints(settings_with()) == []
    (hint,) = exposure_hints(settings_with(password=PASSWORD))
    assert "BRUSHWORK_MODEL_FOLDERS" in hint
    assert "BRUSHWORK_HUB=on" in hint
    assert "seven77" not in "".join(exposure_hints(settings_with(password="seven77")))
    assert len(exposure_hints(settings_with(password="seven77"))) == 2
    opened = settings_with(password=PASSWORD, hub="off", model_folders="/models")
    assert exposure_hints(opened) == []


@pytest.mark.parametrize("value", ["*", "proxy.example", "10.0.0.0/99", "127.0.0.1,*"])
def test_a_trusted_proxy_is_an_address_or_a_network(value: str) -> None:
    with pytest.raises(ValidationError, match="no IP address or network"):
        settings_with(trusted_proxies=value)
    assert settings_with(trusted_proxies="10.0.0.0/8, ::1").trusted_proxy_list == [
        "10.0.0.0/8",
        "::1",
    ]


def test_an_empty_password_is_none(make_app: AppMaker, settings: Settings) -> None:
    changed = settings.model_copy(update={"password": SecretStr("")})
    with TestClient(make_app(changed), base_url="http://localhost") as client:
        assert client.get("/api/v1/datasets").status_code == 200


# -- actors --------------------------------------------------------------------------------------


def test_a_request_acts_in_its_own_name_and_the_process_in_its_own() -> None:
    assert current_actor() is None
    set_process_actor("worker:train")
    try:
        with acting_as("session:7"):
            assert current_actor() == "session:7"
        assert current_actor() == "worker:train"
        with acting_as("x" * 500):
            assert len(current_actor() or "") == 80
    finally:
        set_process_actor("")
    assert current_actor() is None


@pytest.mark.parametrize(
    ("actor", "words"),
    [
        (None, ""),
        ("worker:train", ""),
        ("loopback", ""),
        ("session:7", "session 7"),
        ("basic", "a program"),
        ("cli:ada", "ada on the command line"),
    ],
)
def test_an_actor_is_shown_in_words(actor: str | None, words: str) -> None:
    assert actor_text(actor) == words
