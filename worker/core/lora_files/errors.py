"""The error of LoRA files, which callers catch without loading torch."""


class AdapterError(Exception):
    """An adapter that cannot be used; the message is a sentence for the user."""
