"""Where an activation stands. A table with one door; knows nothing of what happens there."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class State(Enum):
    """Where an activation stands; it only moves down."""

    ACTIVATING = auto()
    VALID = auto()
    DEACTIVATING = auto()
    GONE = auto()


LEGAL: Final = {
    State.ACTIVATING: {State.VALID, State.GONE},
    State.VALID: {State.DEACTIVATING, State.GONE},
    State.DEACTIVATING: {State.GONE},
    State.GONE: set(),
}
