"""What a server tells of itself, as text, and what is read from it. Asks no server."""

from __future__ import annotations

from collections.abc import Mapping


def fields(raw: bytes) -> dict[str, str]:
    """The lines of INFO as names and values."""
    lines = raw.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def identity(run_id: str, replication: Mapping[str, str]) -> str:
    """Which process answers, in which role, with which line of history.

    Args:
        run_id: of INFO server.
        replication: fields of INFO replication.
    """
    # The replication id changes with each promotion, so a server that was demoted and promoted
    # again between two looks does not pass for itself.
    return f"{run_id}:{replication.get('role', '')}:{replication.get('master_replid', '')}"


def parts(text: str) -> dict[str, str]:
    """One of INFO's values that has parts: `ip=10.0.0.7,port=6379,state=online,...`."""
    return dict(part.split("=", 1) for part in text.split(",") if "=" in part)
