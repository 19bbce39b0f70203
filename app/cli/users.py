"""`brushwork users`: people with accounts; links for them are printed here, and nowhere else."""

from __future__ import annotations

import sys
from argparse import Namespace

from app.cli.database import open_state
from app.registry.actor import Role
from app.registry.config import Settings
from app.registry.db import Session
from app.registry.errors import NotFound
from app.registry.people import invitations, leaving, overview
from app.registry.people import service as people
from app.registry.tables.people import User
from app.registry.wording import plural
from app.supervisor.address import reachable_host
from app.supervisor.lock import DataFolderLock

REFUSED = 1


def run(arguments: Namespace, settings: Settings) -> int:
    """Carry out an action; return its exit code. Raises UnusableDatabase."""
    act = ACTIONS[arguments.action]
    with open_state(settings) as state, state.database.write() as session:
        said = act(arguments, session, settings)
    if said is None:
        return REFUSED
    print(said)
    if arguments.action in ("invite", "quota", "reset") and not settings.accounts:
        print(
            "BRUSHWORK_ACCOUNTS is off where this command runs. Start the server with it set to on:"
        )
        print("one that runs without it stays open to everybody who reaches it.")
    return 0


def _named(session: Session, name: str) -> User:
    user = people.find_user(session, name)
    if user is None:
        raise NotFound(f"Nobody here is called “{name}”. `brushwork users list` shows all names.")
    return user


def _list(arguments: Namespace, session: Session, settings: Settings) -> str:
    """The people, by name."""
    found = people.list_users(session)
    if not found:
        return "Nobody has an account. `brushwork users invite NAME --role admin` makes the first."
    width = max(len(user.name) for user in found)
    return "\n".join(f"{user.name:<{width}}  {user.role:<6}  {_state_of(user)}" for user in found)


def _state_of(user: User) -> str:
    if user.disabled_at is not None:
        return "disabled"
    if user.password_hash is None:
        return "has not chosen a password yet"
    return f"last seen {user.seen_at:%Y-%m-%d}" if user.seen_at else "not seen yet"


def _invite(arguments: Namespace, session: Session, settings: Settings) -> str:
    return _link(session, people.add_user(session, arguments.name, arguments.role), settings)


def _reset(arguments: Namespace, session: Session, settings: Settings) -> str:
    return _link(session, _named(session, arguments.name), settings)


def _link(session: Session, user: User, settings: Settings) -> str:
    url = invitations.invitation_url(
        _server_url(settings), invitations.make_invitation(session, user)
    )
    hours = round(invitations.VALID.total_seconds() / 3600)
    return f"{user.name} ({user.role}) chooses a password here, once within {hours} hours:\n{url}"


def _server_url(settings: Settings) -> str:
    """The address of the Brushwork that runs on the data folder, else that of the settings."""
    if settings.data_dir.is_dir():
        with DataFolderLock(settings.data_dir) as lock:
            owner = None if lock.acquire() else lock.owner()
        if owner is not None and owner.url:
            return owner.url
    return f"http://{reachable_host(settings.host)}:{settings.port}"


def _rename(arguments: Namespace, session: Session, settings: Settings) -> str:
    user = _named(session, arguments.name)
    was = user.name
    people.rename(session, user, arguments.new)
    return f"{was} is called {user.name} now."


def _role(arguments: Namespace, session: Session, settings: Settings) -> str:
    user = _named(session, arguments.name)
    people.set_role(session, user, Role(arguments.role))
    return f"{user.name} is {user.role} now, from the next request on."


def _quota(arguments: Namespace, session: Session, settings: Settings) -> str:
    """What a person takes and may take, once those were set that were named."""
    typed = {name: getattr(arguments, name) for name in overview.MOST}
    limits = overview.read_quotas(
        {name: "" if text == "default" else text for name, text in typed.items()}
    )
    user = overview.change(session, _named(session, arguments.name).key, limits=limits)
    use = ", ".join(f"{one.quota} {one.text}" for one in overview.usage_of(session, user))
    return f"{user.name}: {use}."


def _disable(arguments: Namespace, session: Session, settings: Settings) -> str:
    user = _named(session, arguments.name)
    people.disable(session, user)
    return f"{user.name} is disabled: sessions have ended, and tokens open nothing."


def _enable(arguments: Namespace, session: Session, settings: Settings) -> str:
    user = _named(session, arguments.name)
    people.enable(session, user)
    return f"{user.name} can log in again."


def _transfer(arguments: Namespace, session: Session, settings: Settings) -> str:
    leaver, heir = _named(session, arguments.name), _named(session, arguments.to)
    moved = leaving.transfer(session, leaver, heir)
    verb = "belongs" if moved == 1 else "belong"
    return f"{plural(moved, 'thing')} of {leaver.name} now {verb} to {heir.name}."


def _leave(arguments: Namespace, session: Session, settings: Settings) -> str | None:
    """Without `--yes`, only what would become visible."""
    private = leaving.private_things(session)
    visible = ", ".join(f"{count:,} of {name}" for name, count in private.items())
    if not arguments.yes:
        print(f"Private things that everybody would see: {visible or 'none'}.")
        print(
            "Accounts, sessions, tokens and shares would be deleted. Nothing was changed: run it "
            "again with --yes.",
            file=sys.stderr,
        )
        return None
    leaving.leave_accounts(session)
    return (
        f"There are no accounts any more. Private things that everybody sees now: "
        f"{visible or 'none'}. Turn BRUSHWORK_ACCOUNTS off."
    )


ACTIONS = {
    "list": _list,
    "invite": _invite,
    "rename": _rename,
    "role": _role,
    "quota": _quota,
    "reset": _reset,
    "disable": _disable,
    "enable": _enable,
    "transfer": _transfer,
    "leave": _leave,
}
