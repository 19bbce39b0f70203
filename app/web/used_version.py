"""The answer to a form that changed which version of an adapter is in use."""

from __future__ import annotations

from urllib.parse import urlencode

from starlette.responses import Response

from app.registry.adapters.service import UsedVersion
from app.web.templates import redirect_with_notice


def redirect_to_used(used: UsedVersion, back: str, what: str = "") -> Response:
    """Go back to a page that says which version is in use now and can undo it.

    `what`: a remark on the version.
    """
    text = f"Version {used.version.version} of “{used.adapter.name}” is in use now{what}."
    undo = "" if used.undo is None else use_address(used.adapter.slug, used.undo, back)
    return redirect_with_notice(back, text, undo=undo)


def use_address(slug: str, number: int, back: str) -> str:
    """The address of the form that puts a version into use and goes `back`."""
    return f"/adapters/{slug}/versions/{number}/use?{urlencode({'back': back})}"
