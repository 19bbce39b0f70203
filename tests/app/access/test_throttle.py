"""Guessing is slow, in one place and from many, and the log says so without secrets."""

from __future__ import annotations

import io

import pytest
import structlog
from fastapi.testclient import TestClient

from app.registry.access.delays import FREE_TRIES, MAX_DELAY_SECONDS, TooManyTries, site_of
from app.web.access import throttle
from app.web.access.login import Login, Unauthorized
from app.web.access.throttle import BURST, SECONDS_PER_TRY, Throttle
from tests.app.access.conftest import PASSWORD, Clients, Clock, log_in


def guess(login: Login, address: str, given: bytes = b"guess") -> str:
    """The outcome of a guess."""
    try:
        login.check_secret(given, address=address, way="basic")
    except (Unauthorized, TooManyTries) as error:
        return type(error).__name__
    return "right"


def test_each_wrong_password_after_the_first_few_waits_twice_as_long(
    login: Login, clock: Clock
) -> None:
    waits = []
    for _ in range(FREE_TRIES + 9):
        assert guess(login, "192.0.2.9") == "Unauthorized"
        before = clock.now
        while guess(login, "192.0.2.9", PASSWORD.encode()) == "TooManyTries":
            clock.now += 1
        waits.append(clock.now - before)
    assert waits[:FREE_TRIES] == [0.0] * FREE_TRIES
    assert waits[FREE_TRIES:] == [2, 4, 8, 16, 32, 60, 60, 60, 60]


def test_the_right_password_from_elsewhere_works_meanwhile(login: Login) -> None:
    while guess(login, "192.0.2.9") == "Unauthorized":
        pass
    assert guess(login, "192.0.2.9", PASSWORD.encode()) == "TooManyTries"
    assert guess(login, "192.0.2.10", PASSWORD.encode()) == "right"


def test_the_right_password_gives_no_new_tries_to_who_shares_the_address(login: Login) -> None:
    for _ in range(FREE_TRIES):
        assert guess(login, "192.0.2.9") == "Unauthorized"
        assert guess(login, "192.0.2.9", PASSWORD.encode()) == "right"
    assert guess(login, "192.0.2.9") == "Unauthorized"
    assert guess(login, "192.0.2.9") == "TooManyTries"


def test_many_addresses_together_are_slow_too_and_known_ones_are_not_stopped(
    login: Login, clock: Clock
) -> None:
    assert guess(login, "198.51.100.1", PASSWORD.encode()) == "right"
    said = [guess(login, f"192.0.{n // 250}.{n % 250}") for n in range(3 * BURST)]
    assert said == ["Unauthorized"] * BURST + ["TooManyTries"] * 2 * BURST
    assert guess(login, "198.51.100.1", PASSWORD.encode()) == "right"
    clock.now += SECONDS_PER_TRY
    assert [guess(login, f"10.0.0.{n}") for n in range(2)] == ["Unauthorized", "TooManyTries"]


def test_a_wrong_password_is_forgotten_after_a_while(login: Login, clock: Clock) -> None:
    for _ in range(FREE_TRIES):
        guess(login, "192.0.2.9")
    clock.now += 3_600
    assert [guess(login, "192.0.2.9") for _ in range(FREE_TRIES)] == ["Unauthorized"] * FREE_TRIES


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("testclient\n\x1b[2J", "testclient??[2J"),
        ("x" * 500, "x" * 64),
        ("", "unknown"),
    ],
)
def test_an_address_is_counted_as_the_site_it_belongs_to(address: str, site: str) -> None:
    assert site_of(address) == site


def test_memory_is_bounded_however_many_addresses_guess(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MOST_ADDRESSES", 50)
    monkeypatch.setattr(throttle, "MOST_KNOWN", 20)
    clock = Clock()
    guarded = Throttle(clock)
    for number in range(500):
        clock.now += SECONDS_PER_TRY
        guarded.add_wrong(f"2001:db8:{number:x}::1")
        guarded.add_right(f"10.0.{number // 256}.{number % 256}")
    assert (len(guarded._tries), len(guarded._known)) == (50, 20)


def test_no_number_of_wrong_passwords_waits_longer_than_a_minute() -> None:
    guarded = Throttle(Clock())
    waits = [guarded.add_wrong("192.0.2.1") for _ in range(2_000)]
    assert max(waits) == MAX_DELAY_SECONDS


# -- over HTTP ---------------------------------------------------------------------------------


def test_a_program_is_told_when_to_try_again(program: TestClient) -> None:
    for _ in range(FREE_TRIES + 1):
        assert program.get("/api/v1/datasets", auth=("me", "wrong")).status_code == 401
    answer = program.get("/api/v1/datasets", auth=("me", PASSWORD))
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "2"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"].endswith("Try again in 2 seconds.")
    assert program.get("/healthz").status_code == 200


def test_a_person_is_told_when_to_try_again(browser: TestClient) -> None:
    for _ in range(FREE_TRIES + 1):
        assert log_in(browser, "wrong") == 403
    answer = browser.post("/login", data={"password": PASSWORD})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "2"
    assert "Try again in 2 seconds." in answer.text


def test_a_session_goes_on_while_its_address_is_throttled(browser: TestClient) -> None:
    assert log_in(browser) == 303
    for _ in range(FREE_TRIES + 2):
        browser.post("/login", data={"password": "wrong"})
    assert browser.get("/datasets").status_code == 200


def test_a_request_without_a_password_is_no_guess(program: TestClient) -> None:
    for _ in range(3 * FREE_TRIES):
        assert program.get("/api/v1/datasets").status_code == 401
    assert program.get("/api/v1/datasets", auth=("me", PASSWORD)).status_code == 200


def test_each_wrong_password_is_one_line_with_its_address_and_no_secret(
    make_client: Clients, said: io.StringIO
) -> None:
    client = make_client("203.0.113.7", page=False)
    for _ in range(FREE_TRIES + 20):
        client.get("/api/v1/datasets", auth=("somebody", "hunter2secret"))
    client.get("/api/v1/datasets", headers={"authorization": "Basic ???"})
    client.post("/login", data={"password": "hunter2secret"})
    lines = said.getvalue().splitlines()
    refused = [line for line in lines if "password refused" in line]
    assert len(refused) == FREE_TRIES + 1
    assert all("203.0.113.7" in line for line in refused)
    assert len(lines) == len(refused) + 1  # and one that the address is throttled
    assert "hunter2" not in said.getvalue()
    assert "somebody" not in said.getvalue()


@pytest.fixture
def said(locked_app: object) -> io.StringIO:
    """Everything that is logged."""
    stream = io.StringIO()
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(stream))
    return stream
