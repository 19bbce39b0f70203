"""The words by which a caption names a style instead of what the image shows.

The checks of a dataset look for them in captions, and captions of models are kept free of them.
English only: captions in other languages are checked for what they repeat, not for these words.
"""

from __future__ import annotations


def _phrases(text: str) -> frozenset[str]:
    return frozenset(phrase for part in text.split(",") if (phrase := " ".join(part.split())))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STYLES = _phrases(
    """
    3d render, anime, art deco, art nouveau, cel shaded, cel shading, cgi, clip art, clipart,
    comic book, concept art, cross hatching, crosshatching, cubism, digital art, fan art,
    flat design, flat vector, gouache, hand drawn, impasto, impressionism, impressionist, isometric,
    line art, line drawing, lineart, linocut, low poly, manga, octane render, oil on canvas,
    papercut, photorealistic, pixel art, pointillism, risograph, surrealism, ukiyo e, unreal engine,
    vector art, vector graphic, watercolor, watercolors, watercolour, watercolours, woodblock print,
    woodcut
    """
)
"""Styles, wherever they stand."""

PRAISE = _phrases(
    """
    4k, 8k, absurdres, artstation, award winning, best quality, hdr, high quality, highly detailed,
    highres, hyperrealistic, intricate details, masterpiece, sharp focus, trending on artstation,
    ultra detailed
    """
)
"""Words for quality, wherever they stand."""

MEDIA = _words(
    """
    artwork cartoon comic depiction doodle drawing engraving etching graphic illustration image
    lithograph mosaic painting photo photograph photography picture portrait print render rendering
    sketch sticker wallpaper
    """
)
"""Kinds of images: “a chalk drawing of a fox”, “fox, pencil sketch”; not “a man drawing a map”."""

ALSO_THINGS = _words("comic graphic image mosaic picture portrait print sticker wallpaper")
"""Media that are things too: “paw print”, “framed picture”."""

STYLES_ALONE = _phrases(
    """
    abstract, black and white, bold lines, bold outline, bold outlines, clean lines, detailed, flat,
    flat color, flat colors, grayscale, greyscale, limited palette, minimalism, minimalist,
    monochrome, muted colors, pastel colors, realistic, retro, sepia, simple shading, soft shading,
    stylized, thick lines, thick outlines, vibrant colors, vintage
    """
)
"""Styles only where they stand alone between commas: “a black and white cat” shows something."""

STYLE_ENDINGS = _words("style styled aesthetic")
"""“disney style” at the end of a part; next to the trigger word they belong to it."""

NOT_A_STYLE = _words("hair dress buffet family free old life")
"""“hair style” names what is shown."""

ARTICLES = _words("a an the")
STOP_WORDS = ARTICLES | _words(
    """
    about above across after against along among and around as at before behind below beside between
    by down during for from her his in inside into is are was were it its near next of off on onto
    or out over some that their there these this those through to toward under up upon very which
    while with within without
    """
)
"""Words that join others; they stand in most captions and say nothing."""

WEAK = _words("front looking standing sitting holding showing shown one two")
"""Words that say too little to be a finding by themselves."""

ACTORS = _words(
    """
    he she they who and is are was were man woman boy girl child kid person people artist artists
    hand hands student teacher men women children
    """
)
"""A medium after these is a verb: “a girl drawing”."""

STYLES_WITH_MEDIUM = _phrases(
    """
    acrylic painting, chalk drawing, charcoal drawing, ink drawing, ink style, oil painting,
    pencil drawing, pencil sketch, screen print
    """
)
"""Things that name a style with their medium only: “a bottle of ink” shows something."""

MATERIALS = _words("acrylic chalk charcoal crayon gouache ink oil pastel pen pencil watercolor")
"""Other materials of a style: “in watercolor and ink”."""

MANNERS = _words("grayscale greyscale minimalism minimalist monochrome sepia stylised stylized")
"""Adjectives of styles that a model means as such, wherever it writes them."""

MEDIA_AS_SUBJECTS = ALSO_THINGS | _words("photo photograph photography")
"""Media that an image may show: “a person taking a photo”."""

NOT_TO_NAME: tuple[str, ...] = (
    "style",
    "art style",
    *sorted(STYLES | STYLES_WITH_MEDIUM | MANNERS | (MEDIA - MEDIA_AS_SUBJECTS)),
    *sorted(PRAISE),
)
"""Words that captions of models do not contain, unless a person edits the list."""
