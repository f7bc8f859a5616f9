"""Logs as constant events with fields. Owns their form; decides nothing about where they go."""

from __future__ import annotations

import logging


class Log:
    """A logger whose events are constant sentences and whose details are fields.

    Args:
        name: the logger's name, by convention `durum.<noun>`.
        bound: fields that every event carries.
    """

    __slots__ = ("_bound", "_logger", "_name")

    def __init__(self, name: str, **bound: object) -> None:
        self._name = name
        self._bound = bound
        self._logger = logging.getLogger(name)

    def bind(self, **fields: object) -> Log:
        """The same logger with more fields."""
        return Log(self._name, **{**self._bound, **fields})

    def debug(self, event: str, **fields: object) -> None:
        """For the author of Durum."""
        self._emit(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        """Life changes."""
        self._emit(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Durum healed itself."""
        self._emit(logging.WARNING, event, fields)

    def error(self, event: str, exc: BaseException | None = None, **fields: object) -> None:
        """A person must act."""
        self._emit(logging.ERROR, event, fields, exc)

    def _emit(
        self, level: int, event: str, fields: dict[str, object], exc: BaseException | None = None
    ) -> None:
        if self._logger.isEnabledFor(level):
            merged = {**self._bound, **fields}
            text = event + "".join(f" {name}={value!r}" for name, value in merged.items())
            self._logger.log(level, text, exc_info=exc, extra={"durum": (event, merged)})
