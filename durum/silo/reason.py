"""Why an activation ends: what `on_deactivate` is told."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an activation ends."""

    IDLE = "idle"
    """Nobody called for a while."""
    CROWDED = "crowded"
    """The silo has too many actors in memory, and this one was idle the longest."""
    REQUESTED = "requested"
    """The grain asked for it, by `self.deactivate()`."""
    MOVED = "moved"
    """Another silo takes its partition over."""
    STOPPING = "stopping"
    """The silo stops."""
    DELETED = "deleted"
    """An operator deletes the grain: its state goes right after the hook."""
