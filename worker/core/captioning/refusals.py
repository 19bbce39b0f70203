"""Finds answers in which a model refuses to describe an image, which are no captions.

Only the beginning of an answer counts, as it stands: “a sign that says I'm sorry” is a caption, and
so is a line that is quoted.
"""

from __future__ import annotations

import re

from worker.core.captioning.interface import ImageNotCaptioned
from worker.core.wording import shortened

MAX_QUOTED = 200  # characters
REFUSED = "“{model}” refused: “{said}” Change the prompt, or choose another model."

AI = (
    r"an? (?:\w+ )?(?:ai|artificial intelligence|(?:\w+ )?language model|text[- ]based model)"
    r"(?: \w+){0,3}"
)
NOT_ABLE = (
    r"i ?(?:can ?not|can't|could ?n[o']t|will not|won't|do not|don't|(?:must )?(?:\w+ )?decline"
    r"|(?:am |'m )(?:\w+ )?(?:unable|not (?:\w+ )?(?:able|allowed|permitted|comfortable)))\b"
)
# a comma, a period or “but” ends it, which no name of a thing has: “I'm sorry card”
LEAD = re.compile(
    r"(?:(?:(?:i'm|i am) (?:\w+ )?|so |very )?sorry|(?:my )?apologies|i apologi[sz]e|unfortunately"
    rf"|regrettably|(?:thank you|thanks|i understand|i appreciate)\b[^,.]*|as {AI}"
    rf"|i(?:'m| am) (?:\w+ )?{AI})(?:\s*[,.;:!–—-]|\s+(?:but|for|and|so)\b)"
)
AFTER_LEAD = re.compile(
    rf"[^\"“”«»]{{0,80}}?\b(?:{NOT_ABLE}|(?:there is|i see) no (?:image|picture))"
)
IMAGE = r"(?:\w+ ){0,2}(?:images?|pictures?|photos?)\b"
ALONE = re.compile(
    rf"(?:i'm afraid )?(?:that )?{NOT_ABLE}[^\"“”«»,.]{{0,30}}?\b"
    r"(?:(?:help|assist)(?:ing|ance)?(?: with| you| to| in|[.,;!]|$)|do (?:that|this)[.,;!]"
    rf"|(?:see|seeing|view|viewing|open|access) {IMAGE}|tell (?:you|what|who|whether)"
    r"|(?:describ|caption|identif|provid|compl[yi]|fulfil|analy[sz]|interpret|recogni[sz]|generat"
    r"|comment|process|continu|engag)\w*)"
    r"|th(?:is|e) (?:image|picture|request|content) (?:\w+ )?(?:violates|goes against)\b"
)


def is_refusal(text: str) -> bool:
    """True if a cleaned answer begins as a refusal in English does."""
    said = text.lower().replace("’", "'")
    lead = LEAD.match(said)
    return bool(ALONE.match(said) or (lead and AFTER_LEAD.match(said, lead.end())))


def refused(model: str, said: str) -> ImageNotCaptioned:
    """The error for an answer that refuses."""
    return ImageNotCaptioned(REFUSED.format(model=model, said=shortened(said, MAX_QUOTED)))
