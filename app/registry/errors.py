"""Errors with messages for users; each has an HTTP status, used by the web layer."""

from __future__ import annotations

from enum import StrEnum


class AppError(Exception):
    """Base of all errors meant for users: `detail` is a full sentence.

    `location` is a URL with more information, `about` holds additional values for API clients.
    A class names its `status`, `title` and `code` in its head, or has those of its base.
    """

    status = 400
    title = "This did not work"
    code = "error"
    retry_after: int | None = None  # seconds

    def __init_subclass__(
        cls, status: int | None = None, title: str | None = None, code: str | None = None
    ) -> None:
        super().__init_subclass__()
        cls.status, cls.title = status or cls.status, title or cls.title
        cls.code = code or cls.code

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


class InvalidInput(
    AppError, status=422, title="Please check what you entered", code="invalid_input"
):
    """The request is invalid; `fields` holds a reason per field."""


def invalid_field(field: str, sentence: str) -> InvalidInput:
    """The error of a request in which one field is wrong."""
    return InvalidInput(sentence, fields={field: sentence})


class NotFound(AppError, status=404, title="Not found", code="not_found"):
    """The requested object does not exist, or no longer does."""


class Conflict(AppError, status=409, title="This changed in the meantime", code="conflict"):
    """The request conflicts with the current state; the message says what to do."""


class InUse(Conflict, title="In use", code="in_use"):
    """What uses it has to end first; `about` may name the run as `run_id`."""


class TooLarge(AppError, status=413, title="Too large", code="too_large"):
    """The body, file or text exceeds its limit; the message names the limit."""


class NotReady(AppError, status=503, title="Not ready yet", code="not_ready"):
    """The result is being prepared; retry in a moment."""


class UnusableDatabase(
    AppError, status=503, title="The database cannot be used", code="unusable_database"
):
    """This version cannot use the database; the message says why and what to do."""


class OutdatedDatabase(UnusableDatabase):
    """No migration of this version begins at the revision of the database."""


class Forbidden(AppError, status=403, title="Refused", code="forbidden"):
    """The request is refused for security; the message gives the reason."""


class Quota(StrEnum):
    """What a person may take."""

    DISK = "disk"  # bytes
    DEVICE = "device"  # minutes in 30 days
    WAITING = "waiting"  # jobs


class QuotaUsedUp(AppError, title="Your quota is used up", code="quota_used_up"):
    """A person would take more than they may; the message says what frees some of it."""

    def __init__(self, quota: Quota, sentence: str, *, used: int, limit: int) -> None:
        super().__init__(sentence, about={"quota": quota, "used": used, "limit": limit})
        self.status = 507 if quota is Quota.DISK else 429


class StorageFullError(AppError, status=507, title="No space left", code="storage_full"):
    """The disk or bucket is full; nothing was stored."""
