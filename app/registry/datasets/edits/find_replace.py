"""Find and replace in captions, as plain text or by regular expression within a time limit.

Python's `re` holds the interpreter until a match ends, which may be never. The `regex` package
gives up after a time, and lets other threads work meanwhile. It counts CPU time, which on a busy
machine is a part of what a person waits: so one caption may take only some of the time of all, and
the clock is read between captions.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import regex

from app.registry.datasets.edits.actions import Edit
from app.registry.errors import InvalidInput

TIME_LIMIT_SECONDS = 3.0  # for all captions of an edit, by the clock
CAPTION_LIMIT_SECONDS = 0.5  # for one caption, of CPU time


class TimeLimit:
    """The time that is left for one edit, from now on."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = TIME_LIMIT_SECONDS if seconds is None else seconds
        self.end = time.monotonic() + self.seconds

    def left(self) -> float:
        """Seconds that are left. Raises InvalidInput if there are none."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise self.exceeded()
        return left

    def exceeded(self, *, by_one: bool = False) -> InvalidInput:
        """The error to raise at the end of the time; `by_one`: of that of one caption."""
        text = f"{self.seconds:g} seconds"
        if by_one:
            text = f"{CAPTION_LIMIT_SECONDS:g} seconds for one caption"
        sentence = (
            f"The pattern takes longer than {text}. Simplify it: nested repeats such as (a+)+ can "
            "be tried in too many ways. Nothing was changed."
        )
        return InvalidInput(sentence, fields={"find": sentence})


def pattern_rule(edit: Edit, limit: TimeLimit) -> Callable[[str], str]:
    """The function that replaces `edit.find` in a caption.

    Raises InvalidInput for an invalid pattern or replacement, now, and when the time is over.
    """
    return _regex_rule(edit, limit) if edit.is_regex else _plain_rule(edit)


def _plain_rule(edit: Edit) -> Callable[[str], str]:
    inner = re.escape(edit.find)
    if edit.whole_words:
        inner = rf"(?<!\w){inner}(?!\w)"
    pattern = re.compile(inner, 0 if edit.match_case else re.IGNORECASE)
    return lambda caption: pattern.sub(lambda _: edit.replacement, caption)


def _regex_rule(edit: Edit, limit: TimeLimit) -> Callable[[str], str]:
    pattern = _compile(edit)

    def replace(caption: str) -> str:
        left = limit.left()
        seconds = min(left, CAPTION_LIMIT_SECONDS)
        try:
            text: str = pattern.sub(edit.replacement, caption, timeout=seconds, concurrent=True)
        except TimeoutError:
            raise limit.exceeded(by_one=seconds < left) from None
        except (MemoryError, RecursionError):  # “(?R)” contains itself for ever
            raise _invalid("find", "The regular expression is invalid", "it never ends") from None
        except (regex.error, IndexError, ValueError) as error:
            raise _invalid("replacement", "The replacement is invalid", error) from None
        return text

    replace("")
    return replace


def _compile(edit: Edit) -> regex.Pattern[str]:
    flags = 0 if edit.match_case else regex.IGNORECASE
    try:
        compiled: regex.Pattern[str] = regex.compile(edit.find, flags)  # alone: its own error
        if edit.whole_words:
            compiled = regex.compile(rf"\b(?:{edit.find})\b", flags)
    except RecursionError:
        raise _invalid("find", "The regular expression is invalid", "nested too deep") from None
    except (regex.error, ValueError, OverflowError, IndexError) as error:
        raise _invalid("find", "The regular expression is invalid", error) from None
    return compiled


def _invalid(field: str, words: str, reason: object) -> InvalidInput:
    sentence = f"{words}: {reason}."
    return InvalidInput(sentence, fields={field: sentence})
