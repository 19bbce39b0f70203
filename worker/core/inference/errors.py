"""The errors of rendering, which callers catch without loading torch."""


class RenderCanceled(Exception):
    """The render was canceled between two steps or layers."""


class RenderError(Exception):
    """An image that cannot be generated; the message is a sentence for people."""
