"""What a Redis server's settings can lose, in plain words. Decides on values; asks no server."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final

from durum.store.protocol import Durability, Level

_OLDEST: Final = (6, 2)


def judge(
    info: Mapping[str, str], config: Mapping[str, str], *, peer_host: str, password: bool
) -> Durability:
    """Judge a server.

    Args:
        info: fields of INFO.
        config: what CONFIG GET told; empty where it is not allowed.
        peer_host: the address that we reached it at; "" for a socket.
        password: whether we gave one.
    """
    level, summary = _persistence(info, config)
    warnings = []
    if not config:
        warnings.append("CONFIG GET is not allowed: persistence is judged from INFO alone.")
    if info.get("aof_last_write_status", "ok") != "ok":
        warnings.append("The last write of the append-only file failed. Look at the disk.")
    if config.get("no-appendfsync-on-rewrite") == "yes":
        warnings.append(
            "no-appendfsync-on-rewrite is yes: a power cut during a rewrite loses half a minute."
        )
    if level is Level.D1:
        warnings.append("appendfsync is everysec: set it to always to lose nothing.")
    return Durability(
        level=level,
        summary=summary,
        unsafe=tuple(_unsafe(info, peer_host=peer_host, password=password)),
        warnings=tuple(warnings),
    )


def _persistence(info: Mapping[str, str], config: Mapping[str, str]) -> tuple[Level, str]:
    if info.get("aof_enabled") != "1":
        return (
            Level.D0,
            (
                "Redis without an append-only file: a restart loses everything since its last snapshot, "
                "or everything. Set appendonly yes."
            ),
        )
    match config.get("appendfsync", ""):
        case "always":
            return Level.D2, "Redis, synced at each write: nothing acknowledged is lost."
        case "no":
            return (
                Level.D0,
                (
                    "Redis that leaves syncing to the system: a power cut loses half a minute. Set "
                    "appendfsync everysec or always."
                ),
            )
        case "everysec":
            return (
                Level.D1,
                (
                    "Redis, synced each second: a power cut loses the last second or two; a crash of "
                    "the server alone loses next to nothing."
                ),
            )
        case _:
            return Level.D1, "Redis with an append-only file, synced at an unknown pace."


def _unsafe(info: Mapping[str, str], *, peer_host: str, password: bool) -> list[str]:
    found = []
    version = info.get("redis_version", "0")
    if tuple(int(part) for part in version.split(".")[:2] if part.isdecimal()) < _OLDEST:
        found.append(f"Redis {version} is too old: use 6.2 or later, or Valkey.")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(f"maxmemory-policy is {policy}, which deletes data: set it to noeviction.")
    if info.get("role", "master") != "master":
        found.append("The server is a replica: point the URL at the primary.")
    if info.get("cluster_enabled", "0") == "1":
        found.append("The server is in cluster mode: use one without it.")
    if not password and not _is_loopback(peer_host):
        found.append(f"No password towards {peer_host}: set requirepass, and put it into the URL.")
    return found


def _is_loopback(host: str) -> bool:
    return not host or ipaddress.ip_address(host.partition("%")[0]).is_loopback
