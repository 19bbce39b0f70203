"""Log configuration of every process: one line per event, plain tracebacks without secrets."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logs(level: str) -> None:
    """Write events of this level and above to stderr."""
    number = logging.getLevelNamesMapping()[level]
    logging.basicConfig(level=number, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(number),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Plain, because the rich one prints local variables: slow, and may reveal secrets.
            structlog.dev.ConsoleRenderer(
                colors=False, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
        # asked for each event, as stderr may have been replaced since, and the old one closed
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )
