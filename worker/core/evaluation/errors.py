"""Errors of an evaluation; each message says what to do."""


class EvaluationError(Exception):
    """The evaluation cannot be done."""


class NotMeasured(Exception):
    """One measure has nothing to say here; the message says why."""
