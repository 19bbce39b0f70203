"""The running app with accounts, and a browser in which its administrator is logged in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

from fastapi import FastAPI
from playwright.sync_api import BrowserContext
from sqlmodel import select

from app.registry.access import service as sessions
from app.registry.access.secret_marks import PERSON
from app.registry.actor import Limits, Role, Visibility
from app.registry.db import utcnow
from app.registry.people import invitations
from app.registry.people import service as people
from app.registry.tables.adapters import Adapter
from app.registry.tables.people import DeviceUse, Invitation
from app.registry.tables.renders import Render
from app.web.access.login import Login
from tests.browser.conftest import Live


@contextlib.contextmanager
def with_accounts(app: FastAPI, live: Live, context: BrowserContext) -> Iterator[None]:
    """Eva, administrator, is logged in; Ana, a viewer, has the adapters and renders so far."""
    before = app.state.login
    app.state.login = Login(password=None, accounts=True)
    live.state.database.limits = Limits(10**9, 60, 20)
    with live.state.database.write() as session:
        for name, role in (("Eva", Role.ADMIN), ("Ana", Role.MEMBER)):
            user = people.add_user(session, name, role)
        people.set_role(session, user, Role.VIEWER)
        for table in (Adapter, Render):
            for theirs in session.exec(select(table)):
                theirs.owner_id, theirs.visibility = user.key, Visibility.PRIVATE
        later = utcnow() + invitations.VALID
        for token, used_at in (("valid", None), ("used", utcnow())):
            link = {"token_sha256": sessions.token_hash(token), "user_id": user.key}
            session.add(Invitation(**link, expires_at=later, used_at=used_at))
        session.add(DeviceUse(user_id=1, hour=utcnow(), queue="train", seconds=7_200.0))
    log_in(live, context, user_id=1)
    yield
    app.state.login, live.state.database.limits = before, None


def log_in(live: Live, context: BrowserContext, *, user_id: int) -> None:
    """Make this person's session the browser's."""
    with live.state.database.write() as session:
        token, _ = sessions.open_session(
            session, secret_mark=PERSON, address="", browser="Firefox on Linux", user_id=user_id
        )
    name = f"brushwork-session-{urlsplit(live.url).port}"
    context.add_cookies([{"name": name, "value": token, "url": live.url}])
