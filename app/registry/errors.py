"""Errors that a person can act on; each knows its HTTP status, `main.py` makes answers of them."""

from __future__ import annotations


class AppError(Exception):
    """Base of all errors meant for people: `detail` is a whole sentence.

    `location` is where to look next, `about` what else a program can use of the answer.
    """

    status = 400
    title = "This did not work"
    code = "error"

    def __init__(
        self,
        detail: str,
        *,
        fields: dict[str, str] | None = None,
        location: str | None = None,
        about: dict[str, int | str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = fields or {}
        self.location = location
        self.about = about or {}


class InvalidInput(AppError):
    """Something in the request is wrong; `fields` names what, by field."""

    status = 422
    title = "Please check what you entered"
    code = "invalid_input"


class NotFound(AppError):
    """What was asked for does not exist, or no longer does."""

    status = 404
    title = "Not found"
    code = "not_found"


class Conflict(AppError):
    """Somebody or something else was first; the sentence says what to do."""

    status = 409
    title = "This changed in the meantime"
    code = "conflict"


class TooLarge(AppError):
    """The body, file or text is over its limit; the sentence names the limit."""

    status = 413
    title = "Too large"
    code = "too_large"


class NotReady(AppError):
    """The answer is being made; asking again in a moment will give it."""

    status = 503
    title = "Not ready yet"
    code = "not_ready"


class Forbidden(AppError):
    """The request is refused for safety; the sentence says why."""

    status = 403
    title = "Refused"
    code = "forbidden"


class StorageFullError(AppError):
    """The disk or bucket has no room; nothing was stored."""

    status = 507
    title = "No space left"
    code = "storage_full"
