"""What a durum process's exit code says. Owns the numbers; knows no command.

Supervisors act on these: 70 is worth a restart at once, 75 after a while, 78 only after a person
has changed something. 75 and 78 have the meaning of sysexits.h.
"""

from __future__ import annotations

from typing import Final

from durum import errors

CLEAN: Final = 0
"""Did what it was asked; a silo has handed everything over."""

FAILED: Final = 1
"""The thing itself failed: a called method raised, the demo's totals are wrong."""

UNREACHABLE: Final = 69
"""No silo answers."""

DECLARED_DEAD: Final = 70
"""The other silos declared this one dead. It serves nothing; start it again."""

STORE: Final = 75
"""The store does not answer, or has lost what it had acknowledged."""

CONFIG: Final = 78
"""Wrong or unsafe configuration: the app, an option, a secret, a setting of the store."""

INTERRUPTED: Final = 130
"""Ctrl-C."""

_BY_ERROR: Final = (
    (errors.DeclaredDead, DECLARED_DEAD),
    (errors.StoreError, STORE),
    (errors.IncompatibleSilo, CONFIG),
    (errors.ConfigError, CONFIG),
    (errors.NoSilo, UNREACHABLE),
)


def of(error: BaseException) -> int:
    """The exit code for an error that ended a command."""
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return FAILED
