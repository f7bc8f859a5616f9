"""Logs on standard error, for people or for machines. Owns the form of a line; decides on no event."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from durum import errors


def configure(form: str, level: str) -> None:
    """Send all logs to standard error; standard output belongs to the command's own result.

    Args:
        form: "text", a line with fields as name=value, or "json", an object a line.
        level: debug, info, warning or error.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    # Its debug lines tell of each selector that is made.
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _event_of(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    """What durum.telemetry put aside for us; other libraries' records are their message alone."""
    event: object = getattr(record, "durum", None)
    if isinstance(event, tuple):
        return event
    return record.getMessage(), {}


class _Text(logging.Formatter):
    """`20:31:02.114 INFO  silo: declared dead silo='127.0.0.1:7600@17'`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone()
        noun = record.name.removeprefix("durum.")
        line = f"{at:%H:%M:%S}.{at.microsecond // 1000:03} {record.levelname:<7} {noun}: "
        line += record.getMessage()
        if record.exc_info and not isinstance(record.exc_info[1], errors.DurumError):
            line += "\n" + self.formatException(record.exc_info)
        elif record.exc_info:
            line += f" error={record.exc_info[1]!r}"
        return line


class _Json(logging.Formatter):
    """One object a line; `event` is constant text, everything that varies has a field of its own."""

    def format(self, record: logging.LogRecord) -> str:
        event, fields = _event_of(record)
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": event,
            **fields,
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = repr(record.exc_info[1])
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
