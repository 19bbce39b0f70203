"""The actions of a role and of a token's scope: the right to one is in both."""

from __future__ import annotations

from enum import StrEnum

from app.registry.actor import ROLE_WORDS, Role
from app.web.access.needs import EVERYTHING, Action


class Scope(StrEnum):
    """The scope of an access token; each includes those before it."""

    READ = "read"
    USE = "use"
    WRITE = "write"
    ADMIN = "admin"


_READ = frozenset({Action.OPEN, Action.LOOK})
_USE = _READ | {Action.DRAW, Action.DOWNLOAD, Action.VOTE, Action.CONTROL}
_WRITE = _USE | {Action.TRAIN, Action.CREATE, Action.EDIT, Action.OWN, Action.BULK}
OF_ROLE = {
    Role.VIEWER: _READ | {Action.ACCOUNT, Action.VOTE},
    Role.MEMBER: EVERYTHING - {Action.ADMIN},
    Role.ADMIN: EVERYTHING,
}
OF_SCOPE = {
    Scope.READ: _READ,
    Scope.USE: _USE,
    Scope.WRITE: _WRITE,
    Scope.ADMIN: _WRITE | {Action.ADMIN},
    None: EVERYTHING,
}


def grants(role: Role, scope: Scope | None) -> frozenset[Action]:
    """The actions of a person with this role; scope None: in a browser's session."""
    return OF_ROLE[role] & OF_SCOPE[scope]


def words_of(action: Action, role: Role | None = None) -> str:
    """The least role and scope of an action, as sentences.

    `role`: that of a person in a browser, who has no scope.
    """
    least = next(one for one, actions in OF_ROLE.items() if action in actions)
    if role is not None:
        return (
            f"Your role is {ROLE_WORDS[role].lower()}. This needs the role "
            f"{ROLE_WORDS[least].lower()}, which an administrator can give you."
        )
    scope = next(scope for scope, actions in OF_SCOPE.items() if action in actions)
    token = f"a token also needs the scope {scope}" if scope else "no token may do it"
    return f"It needs the role {least}; {token}."
