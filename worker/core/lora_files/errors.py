"""The errors of LoRA files, which callers catch without loading torch."""


class AdapterError(Exception):
    """An adapter that cannot be used; the message is a sentence for the user."""


class LossError(AdapterError):
    """An adapter that would lose much of its change; `loss` is the share, as a relative norm."""

    def __init__(self, sentence: str, loss: float) -> None:
        super().__init__(sentence)
        self.loss = loss
