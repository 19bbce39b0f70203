"""Errors of the Hub, each with a sentence that says what to do."""

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
MAX_MESSAGE = 200


class HubError(Exception):
    """A request to the Hub that failed; the message is a sentence for people.

    `code`: by default that of a repository or file that cannot be used.
    """

    def __init__(self, sentence: str, code: str = "hub_unusable") -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True)
class Access:
    """The Hub's address and the access token; without a token, access is anonymous."""

    endpoint: str
    token: str | None = None

    @property
    def token_advice(self) -> str:
        """Instructions to create and set a token, as part of a sentence."""
        return TOKEN_ADVICE.format(endpoint=self.endpoint)


def explain_error(error: BaseException, repo: str, access: Access) -> HubError | None:
    """The error as a HubError, None when it is not from the Hub; `repo` is the requested
    repository."""
    if isinstance(error, HubError):
        return error
    if isinstance(error, OfflineModeIsEnabled):
        return HubError("HF_HUB_OFFLINE is set. Unset it, or use a local file.", "hub_offline")
    if isinstance(error, HFValidationError):
        return HubError(f"“{repo}” is not a repository name. Write owner/name.", "hub_name")
    if isinstance(error, LocalTokenNotFoundError):
        return HubError(f"The Hub needs a token: {access.token_advice}.", "hub_token")
    if isinstance(error, EntryNotFoundError):
        return HubError(f"“{repo}” has no such file. Check the name.", "hub_not_found")
    if isinstance(error, HfHubHTTPError):
        return _explain_response(error, repo, access)
    if isinstance(error, httpx2.TransportError):
        return HubError(
            f"The Hub at {access.endpoint} cannot be reached. Check the connection and try again; "
            "the download continues where it stopped.",
            "hub_unreachable",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HubError(
            "The disk of the data folder is full. Free some space and try again; the download "
            "continues where it stopped.",
            "disk_full",
        )
    if isinstance(error, OSError) and str(error).startswith("Consistency check failed"):
        return HubError(
            "The connection broke before a file was complete. Try again to continue.",
            "hub_unreachable",
        )
    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # from an upload thread
        return explain_error(error.__cause__, repo, access)
    return None


def _explain_response(error: HfHubHTTPError, repo: str, access: Access) -> HubError:
    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        hint = f"Ask for access at {access.endpoint}/{repo}"
        then = "" if access.token else f" and {access.token_advice}"
        return HubError(f"“{repo}” is gated: its owner grants access. {hint}{then}.", "hub_gated")
    if isinstance(error, DisabledRepoError):
        return HubError(
            f"The Hub has disabled “{repo}”. Choose another repository.", "hub_disabled"
        )
    if isinstance(error, RevisionNotFoundError):
        return HubError(
            f"“{repo}” has no such branch, tag or commit. Check the name.", "hub_not_found"
        )
    if status == 401 and access.token and "invalid" in _response_message(error).lower():
        return HubError(f"The Hub does not accept the token: {access.token_advice}.", "hub_token")
    if isinstance(error, RepositoryNotFoundError):
        private = "" if access.token else f" If it is private, {access.token_advice}."
        return HubError(
            f"“{repo}” was not found at {access.endpoint}. Check the name.{private}",
            "hub_not_found",
        )
    if status == 401:
        return HubError(f"The Hub needs a token: {access.token_advice}.", "hub_token")
    if status == 403:
        return HubError(
            f"The token lacks permission for “{repo}”: use one that has it. The Hub says: "
            f"{_response_message(error)}",
            "hub_denied",
        )
    if status == 429:
        return HubError("The Hub limits the number of requests. Try again later.", "hub_busy")
    if status >= 500:
        return HubError(
            f"The Hub reports a server error ({status}). Try again later.", "hub_failed"
        )
    return HubError(
        f"The Hub refused the request ({status}): {_response_message(error)}", "hub_refused"
    )


def _response_message(error: HfHubHTTPError) -> str:
    """The Hub's message in one line."""
    message = error.response.headers.get("x-error-message") or error.server_message or ""
    if not message:
        try:
            message = str(json.loads(error.response.text).get("error", ""))
        except (ValueError, AttributeError, httpx2.StreamError):
            message = ""
    return (" ".join(message.split()) or "no reason given")[:MAX_MESSAGE]
