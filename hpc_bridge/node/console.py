"""Tells the flow's log from its other output in the job's output file.

What a flow logs goes to the server by itself and is also printed. Whoever brings the job's output
to the server as well leaves out the lines that ``is_run_log`` knows, so that none comes twice.
Standard library only, until ``mark_run_logs`` is called.
"""

from __future__ import annotations

import logging
import re

GUTTER = " " * 12 + " | " + " " * 7 + " | "
"""Begins each further line of a message: as wide as the time and level before its first line."""

# The formats of Prefect's logging.yml, coloured or not.
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FIRST_LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} \| [A-Z]+ *\| (Flow|Task) run (['\"]).*?\2 - ")
_UNSENT = " "
"""Before a line that only looks like one that was sent."""
_LINK = re.compile(_UNSENT + _FIRST_LINE.pattern + r"View at https?://")
"""Prefect prints where to look at the run, which its log need not say."""


def is_run_log(line: str) -> bool:
    """Whether a line of a job's output belongs to a message that the flow sends by itself."""
    plain = _COLOURS.sub("", line)
    return plain.startswith(GUTTER.rstrip()) or any(
        form.match(plain) is not None for form in (_FIRST_LINE, _LINK)
    )


def mark_run_logs() -> None:
    """Let Prefect's console handlers of this process print so that ``is_run_log`` is right."""
    from prefect.logging.handlers import PrefectConsoleHandler

    for logger in (logging.root, logging.getLogger("prefect")):
        for handler in logger.handlers:
            if isinstance(handler, PrefectConsoleHandler):
                handler.setFormatter(_Marking(handler.formatter or logging.Formatter()))


class _Marking(logging.Formatter):
    """Another formatter's text; every line of a message that is sent is recognised."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        text = self._inner.format(record)
        lines = text.splitlines() or [text]
        if not _is_sent(record):
            return "\n".join(_UNSENT + line if is_run_log(line) else line for line in lines)
        first = lines[0] if is_run_log(lines[0]) else GUTTER + lines[0]  # a format of the user's
        return "\n".join([first, *(GUTTER + line for line in lines[1:])])


def _is_sent(record: logging.LogRecord) -> bool:
    """As Prefect's ``APILogHandler`` decides it."""
    from prefect.context import FlowRunContext, TaskRunContext, get_settings_context

    if not get_settings_context().settings.logging.to_api.enabled:
        return False
    if not getattr(record, "send_to_api", True) or not _reaches_the_server(record):
        return False
    known = getattr(record, "flow_run_id", None) or FlowRunContext.get() or TaskRunContext.get()
    return known is not None


def _reaches_the_server(record: logging.LogRecord) -> bool:
    """Whether the record's logger has an API handler: that of a run, or an extra logger."""
    from prefect.logging.handlers import APILogHandler, WorkerAPILogHandler

    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None:
        for handler in logger.handlers:
            if isinstance(handler, APILogHandler) and record.levelno >= handler.level:
                return not isinstance(handler, WorkerAPILogHandler)
        logger = logger.parent if logger.propagate else None
    return False
