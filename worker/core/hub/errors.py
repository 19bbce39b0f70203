"""What can go wrong with the Hub, each as a sentence a person can act on."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass

import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

TOKEN_ADVICE = "set BRUSHWORK_HUB_TOKEN to an access token made at {endpoint}/settings/tokens"
MAX_SAID = 200


class HubError(Exception):
    """Something that the Hub, the line or the disk does not give; the message is for people."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Access:
    """Where the Hub is and who asks; without a token it is nobody in particular."""

    endpoint: str
    token: str | None = None

    @property
    def token_advice(self) -> str:
        """How to get and give a token, as a part of a sentence."""
        return TOKEN_ADVICE.format(endpoint=self.endpoint)


def explained(error: BaseException, repo: str, access: Access) -> HubError | None:
    """The error in words, None when it is none of the Hub's; `repo` is what was asked for."""
    if isinstance(error, HubError):
        return error
    if isinstance(error, OfflineModeIsEnabled):
        return HubError(
            "hub_offline", "HF_HUB_OFFLINE forbids to ask the Hub. Unset it, or use a local file."
        )
    if isinstance(error, HFValidationError):
        return HubError("hub_name", f"“{repo}” is no name of a repository: owner/name is expected.")
    if isinstance(error, LocalTokenNotFoundError):
        return HubError("hub_token", f"The Hub asks who you are: {access.token_advice}.")
    if isinstance(error, HfHubHTTPError):
        return _answered(error, repo, access)
    if isinstance(error, EntryNotFoundError):
        return HubError("hub_not_found", f"“{repo}” has no such file.")
    if isinstance(error, httpx2.TransportError):
        return HubError(
            "hub_unreachable",
            f"The Hub at {access.endpoint} cannot be reached. Check the connection, then try "
            "again; what has arrived is kept.",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HubError(
            "disk_full",
            "The disk of the data folder is full. Make room, then try again; what has arrived "
            "is kept.",
        )
    if isinstance(error, OSError) and str(error).startswith("Consistency check failed"):
        return HubError(
            "hub_unreachable", "The connection broke before a file was whole. Try again to go on."
        )
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # of an upload's thread
        return explained(error.__cause__, repo, access)
    return None


def _answered(error: HfHubHTTPError, repo: str, access: Access) -> HubError:
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        ask = f"Ask for access at {access.endpoint}/{repo}"
        then = "" if access.token else f" and {access.token_advice}"
        return HubError("hub_gated", f"“{repo}” is gated: its owner admits people. {ask}{then}.")
    if isinstance(error, DisabledRepoError):
        return HubError("hub_disabled", f"The Hub has closed “{repo}”.")
    if isinstance(error, RevisionNotFoundError):
        return HubError("hub_not_found", f"“{repo}” has no such branch, tag or commit.")
    if isinstance(error, EntryNotFoundError):
        return HubError("hub_not_found", f"“{repo}” has no such file.")
    if status == 401 and access.token and "invalid" in _said(error).lower():
        return HubError("hub_token", f"The Hub does not know the token: {access.token_advice}.")
    if isinstance(error, RepositoryNotFoundError):
        private = "" if access.token else f" If it is private, {access.token_advice}."
        return HubError("hub_not_found", f"There is no “{repo}” at {access.endpoint}.{private}")
    if status == 401:
        return HubError("hub_token", f"The Hub asks who you are: {access.token_advice}.")
    if status == 403:
        return HubError(
            "hub_denied",
            f"The token may not do this with “{repo}”: it needs the right to it. The Hub says: "
            f"{_said(error)}",
        )
    if status == 429:
        return HubError("hub_busy", "The Hub takes no more requests for now. Try again later.")
    if status >= 500:
        return HubError("hub_failed", f"The Hub has trouble of its own ({status}). Try again soon.")
    return HubError("hub_refused", f"The Hub refused this ({status}): {_said(error)}")


def _said(error: HfHubHTTPError) -> str:
    """The Hub's own words, in one line."""
    said = error.response.headers.get("x-error-message") or error.server_message or ""
    if not said:
        try:
            said = str(json.loads(error.response.text).get("error", ""))
        except (ValueError, AttributeError, httpx2.StreamError):
            said = ""
    return (" ".join(said.split()) or "nothing more")[:MAX_SAID]
