"""Asks a package index (PEP 503) for a package: a short question that never hangs."""

from __future__ import annotations

import platform
import re
import ssl
import sys
import threading
from collections.abc import Mapping
from http.client import HTTPException
from queue import Empty, SimpleQueue
from urllib.error import HTTPError, URLError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

PYPI = "https://pypi.org/simple"
ANSWER_SECONDS = 5.0
MAX_PAGE_BYTES = 8_000_000
WHEEL = re.compile(r"[\w.]+-[^-\"'<>#/ ]+-([\w.]+)-[\w.]+-([\w.]+)\.whl")


def problem_with(index: str, package: str, pip_config: Mapping[str, str]) -> str | None:
    """Why nothing can be installed from this index; None if it has a wheel for this Python.

    The words continue a sentence that begins with the index: "did not answer within 5 seconds".
    The answer comes within `ANSWER_SECONDS`, whatever the network does. Proxies of the environment
    and pip's options `proxy` and `cert` are used.
    """
    answers: SimpleQueue[str | None] = SimpleQueue()
    question = threading.Thread(  # a name that cannot be resolved has no timeout of its own
        target=lambda: answers.put(_ask(index, package, pip_config)), daemon=True
    )
    question.start()
    try:
        return answers.get(timeout=ANSWER_SECONDS)
    except Empty:
        return f"did not answer within {ANSWER_SECONDS:.0f} seconds"


def _ask(index: str, package: str, pip_config: Mapping[str, str]) -> str | None:
    proxy = pip_config.get("proxy")
    proxies = ProxyHandler({"http": proxy, "https": proxy} if proxy else None)
    try:
        trust = ssl.create_default_context(cafile=pip_config.get("cert"))
        opener = build_opener(proxies, HTTPSHandler(context=trust))
        request = Request(f"{index.rstrip('/')}/{package}/", headers={"Accept": "text/html"})
        with opener.open(request, timeout=ANSWER_SECONDS) as answer:
            page = answer.read(MAX_PAGE_BYTES).decode("utf-8", "replace")
    except HTTPError as error:
        return f"answered with status {error.code}"
    except URLError as error:
        return f"could not be reached ({_reason(error.reason)})"
    except (OSError, HTTPException, ValueError) as error:
        return f"could not be reached ({_reason(error)})"
    if any(_fits(*tags) for tags in WHEEL.findall(page)):
        return None
    version = ".".join(map(str, sys.version_info[:2]))
    return f"has no {package} for Python {version} on {platform.machine()}"


def _reason(error: object) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _fits(python: str, platforms: str) -> bool:
    """True if a wheel with these tags runs here, as far as names tell."""
    own = {"py3", "py{}{}".format(*sys.version_info), "cp{}{}".format(*sys.version_info)}
    is_here = platforms == "any" or platform.machine() in platforms
    return is_here and not own.isdisjoint(python.split("."))
