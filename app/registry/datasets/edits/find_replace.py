"""Find and replace in captions, as plain text or by regular expression.

The regular expression of a person runs on RE2: a search takes time that grows with the caption and
at most 8 MiB of memory, and other threads work meanwhile; `re` promises neither. As a caption may
need thousands of searches, the CPU time of all is limited too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import re2

from app.registry.datasets.captions import CaptionRefused
from app.registry.datasets.edits.actions import Edit
from app.registry.errors import invalid_field

CPU_SECONDS = 20.0  # for all captions of an edit; read before each search and each caption

# RE2 takes \w, \d and \b as ASCII; \s too, but of white space a caption has only spaces
WORD = r"\pL\pM\pN\p{Pc}"
OTHERS = r"\pC\pS\pZ\p{Pd}\p{Pe}\p{Pf}\p{Pi}\p{Po}\p{Ps}"
ALONE = {r"\w": f"[{WORD}]", r"\W": f"[^{WORD}]", r"\d": r"\p{Nd}", r"\D": r"\P{Nd}"}
ALONE[r"\C"] = "."  # a byte, which may be half a character
IN_CLASS = ALONE | {r"\w": WORD, r"\W": OTHERS}
TOKEN = re.compile(r"\\(?:Q.*?(?:\\E|$)|.)|\[:\^?\w+:\]|\[\^?\]?|\]", re.DOTALL)
LETTER_BEYOND_ASCII = re.compile(r"[^\W\x00-\x7f]")
REFERENCE = re.compile(r"\\(?:g<(\w+)>|([1-9][0-9]?)|(\W|[nt])?)")  # in a replacement

ADVICE = {  # by what RE2 says of a pattern
    r"operator: \(\?<?[=!]": "Look-around, such as (?=…) and (?<!…), is not supported. Match the "
    r"text around it too, in a group that the replacement puts back: fox( in snow) and owl\1",
    r"sequence: \\[1-9gk]|operator: \(\?P": r"A back-reference, such as \1, is supported in the "
    "replacement, not in the pattern. Write out what it can repeat: red red|blue blue",
    "repetition size": "A repeat, such as a{2,5}, goes from a lower to a higher number, at most "
    "1,000; repeats inside repeats multiply",
    "too large": "It takes too much memory. Use lower numbers of repeats",
}


def pattern_rule(edit: Edit) -> Callable[[str], str]:
    r"""The function that replaces `edit.find` in a caption, in this thread.

    Raises InvalidInput for an invalid pattern or replacement, now, and when the CPU time is over.
    The function raises CaptionRefused if \b would not see the letters of a caption.
    """
    return _regex_rule(edit) if edit.is_regex else _plain_rule(edit)


def _plain_rule(edit: Edit) -> Callable[[str], str]:
    inner = re.escape(edit.find)
    if edit.whole_words:
        inner = rf"(?<!\w){inner}(?!\w)"
    pattern = re.compile(inner, 0 if edit.match_case else re.IGNORECASE)
    check_time = _time_check()

    def replace(caption: str) -> str:
        check_time()
        return pattern.sub(lambda _: edit.replacement, caption)

    return replace


def _regex_rule(edit: Edit) -> Callable[[str], str]:
    _compile(edit.find, edit)  # alone: an error names what was typed
    before, after = (f"(?:^|[^{WORD}])", f"(?:[^{WORD}]|$)") if edit.whole_words else ("", "")
    pattern = _compile(f"{before}({_with_unicode_classes(edit.find)}){after}", edit)
    pieces = _pieces(edit.replacement, pattern)
    has_border = not {r"\b", r"\B"}.isdisjoint(TOKEN.findall(edit.find))
    check_time = _time_check()

    def replace(caption: str) -> str:
        if has_border and LETTER_BEYOND_ASCII.search(caption):
            raise CaptionRefused(
                r"\b and \B see only the letters A to Z, and this caption has others. Leave them "
                "out of the pattern and choose “Whole words”."
            )
        text, parts, end, start = caption.encode(), list[bytes](), 0, 0
        while start <= len(text):
            check_time()
            match = pattern.search(text, start)
            if match is None:
                break
            parts.append(text[end : match.start(1)])
            parts += (match[part] or b"" if isinstance(part, int) else part for part in pieces)
            end = match.end(1)
            start = end + (end == match.start(1))
            while start < len(text) and text[start] & 0xC0 == 0x80:
                start += 1  # to the next character
        return b"".join([*parts, text[end:]]).decode()

    return replace


def _time_check() -> Callable[[], None]:
    """A function that raises InvalidInput when the CPU time from now on is over."""
    until = time.thread_time() + CPU_SECONDS

    def check() -> None:
        if time.thread_time() > until:
            raise invalid_field(
                "find",
                f"This takes more than {CPU_SECONDS:g} seconds of CPU time. Simplify the pattern "
                "or select fewer images. Nothing was changed.",
            )

    return check


def _compile(pattern: str, edit: Edit) -> Any:
    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = edit.match_case
    try:
        return re2.compile(pattern.encode(), options)
    except UnicodeEncodeError:
        reason = "it is not valid Unicode"
    except re2.error as error:
        reason = error.args[0].decode(errors="replace")
        reason = next((text for said, text in ADVICE.items() if re.search(said, reason)), reason)
    finally:
        re2.purge()  # it would keep 128 patterns with what they have allocated
    raise invalid_field("find", f"The regular expression is invalid: {reason}.")


def _with_unicode_classes(find: str) -> str:
    r"""The pattern with \w, \W, \d and \D of Unicode."""
    in_class = False

    def translated(found: re.Match[str]) -> str:
        nonlocal in_class
        token = found[0]
        if token == "]":
            in_class = False
        elif token in ("[", "[^", "[]", "[^]"):
            in_class = not (in_class and token[-1] == "]")
        return (IN_CLASS if in_class else ALONE).get(token, token)

    return TOKEN.sub(translated, find)


def _pieces(replacement: str, pattern: Any) -> list[bytes | int]:
    """The texts of a replacement, and the groups of the pattern between them, by number."""
    pieces: list[bytes | int] = []
    end = 0
    for found in REFERENCE.finditer(replacement):
        pieces.append(replacement[end : found.start()].encode(errors="ignore"))
        end = found.end()
        if name := found[1] or found[2]:
            named = pattern.groupindex.get(name.encode(), 0)
            number = int(name) + 1 if name.isdecimal() else named
            if not 0 < number <= pattern.groups:
                raise invalid_field("replacement", f"The pattern has no group {name}.")
            pieces.append(number)
        elif found[3]:
            pieces.append(b" " if found[3] in "nt" else found[3].encode(errors="ignore"))
        else:
            raise invalid_field("replacement", r"Write \\ in the replacement for a backslash.")
    return [*pieces, replacement[end:].encode(errors="ignore")]
