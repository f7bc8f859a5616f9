"""What the settings of Redis servers can lose, in plain words. Decides on values; asks no server."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Final

import msgspec

from durum.ids import Address
from durum.store import redis_info
from durum.store.protocol import Durability, Level
from durum.store.redis_url import Form

_OLDEST: Final = (6, 2)
_HEEDS_IN_SCRIPTS: Final = (7, 0)
_FULL: Final = 0.8


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a server has told.

    Args:
        form: how servers belong together, by the URL.
        info: fields of INFO.
        config: what CONFIG GET told; None where it is not allowed.
        peer_host: the address that we reached it at; "" for a socket.
        trusted: whether we gave a password or a certificate.
        wait: how many replicas must have a write before it counts.
    """

    form: Form
    info: Mapping[str, str]
    config: Mapping[str, str] | None
    peer_host: str
    trusted: bool
    wait: int = 0

    @property
    def settings(self) -> Mapping[str, str]:
        """The configuration, as far as it is known."""
        return self.config or {}

    @property
    def replicas(self) -> int:
        """How many replicas are connected and have caught up with the beginning."""
        count = int(self.info.get("connected_slaves", "0"))
        states = (redis_info.parts(self.info.get(f"slave{n}", "")) for n in range(count))
        return sum(one.get("state") == "online" for one in states)

    @property
    def fails_over(self) -> bool:
        """Whether a replica becomes the primary without a person's doing."""
        return self.form is not Form.ONE and self.replicas > 0


def judge(asked: Asked) -> Durability:
    """Judge one primary."""
    level, summary = _level(asked)
    return Durability(
        level=level,
        summary=summary,
        unsafe=tuple(_unsafe(asked)),
        warnings=tuple(_warnings(asked, level)),
        facts=_facts(asked),
    )


def merge(found: Mapping[Address, Durability], state: Mapping[str, str]) -> Durability:
    """Judge a cluster by its masters: the weakest tells how strong it is.

    Args:
        found: each master's own.
        state: fields of CLUSTER INFO.
    """
    weakest = min(found, key=lambda address: found[address].level)
    level = found[weakest].level
    alike = len({one.summary for one in found.values()}) == 1
    warnings = list(_several({address: one.warnings for address, one in found.items()}))
    if state.get("cluster_state", "ok") != "ok":
        warnings.append("The cluster says that it is not ok: look at CLUSTER INFO.")
    names = dict.fromkeys(name for one in found.values() for name in one.facts)
    facts = {
        name: _together({a: one.facts.get(name, "") for a, one in found.items()}) for name in names
    }
    return Durability(
        level=level,
        summary=f"{len(found)} masters. "
        + ("" if alike else f"The weakest, {weakest}: ")
        + found[weakest].summary,
        unsafe=_several({address: one.unsafe for address, one in found.items()}),
        warnings=tuple(warnings),
        facts=facts,
    )


def _several(texts: Mapping[Address, tuple[str, ...]]) -> tuple[str, ...]:
    """What all say is said once; what only some say, with their names."""
    who: dict[str, list[str]] = {}
    for address, each in texts.items():
        for text in each:
            who.setdefault(text, []).append(address)
    return tuple(
        text if len(whose) == len(texts) else f"{', '.join(whose)}: {text}"
        for text, whose in who.items()
    )


def _together(values: Mapping[Address, str]) -> str:
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return "; ".join(f"{address}: {value}" for address, value in values.items())


def _level(asked: Asked) -> tuple[Level, str]:
    level, summary = _persistence(asked)
    if not asked.wait:
        if not asked.fails_over:
            return level, summary
        return min(level, Level.D1), (
            f"{summary} A failover loses what the replica had not received yet, mostly less than a "
            "second's writes: ask for wait=1."
        )
    if asked.replicas < asked.wait:
        return level, f"{summary} Replicas are missing, and no write counts until they are back."
    many = "a replica" if asked.wait == 1 else f"{asked.wait} replicas"
    if level is Level.D2:
        return Level.D3, (
            f"Redis, synced at each write and confirmed by {many}: nothing acknowledged is lost unless "
            "the primary and they are lost together."
        )
    return level, f"{summary} What is acknowledged is on {many} too, if it is promoted then."


def _persistence(asked: Asked) -> tuple[Level, str]:
    if asked.info.get("aof_enabled") != "1":
        also = ", and so do its replicas" if asked.replicas else ""
        return Level.D0, (
            "Redis without an append-only file: a restart loses everything since its last snapshot, "
            f"or everything{also}. Set appendonly yes."
        )
    match asked.settings.get("appendfsync", ""):
        case "always":
            return Level.D2, "Redis, synced at each write: nothing acknowledged is lost."
        case "no":
            return Level.D0, (
                "Redis that leaves syncing to the system: a power cut loses half a minute. Set "
                "appendfsync everysec or always."
            )
        case "everysec":
            return Level.D1, (
                "Redis, synced each second: a power cut loses the last second or two; a crash of "
                "the server alone loses next to nothing."
            )
        case _:
            return Level.D1, "Redis with an append-only file, synced at an unknown pace."


def _warnings(asked: Asked, level: Level) -> list[str]:
    info, config, found = asked.info, asked.settings, []
    if asked.config is None:
        found.append("CONFIG GET is not allowed: persistence is judged from INFO alone.")
    if info.get("aof_last_write_status", "ok") != "ok":
        found.append("The last write of the append-only file failed. Look at the disk.")
    if config.get("no-appendfsync-on-rewrite") == "yes":
        found.append(
            "no-appendfsync-on-rewrite is yes: a power cut during a rewrite loses half a minute."
        )
    if level is Level.D1 and config.get("appendfsync") == "everysec":
        found.append("appendfsync is everysec: set it to always to lose nothing.")
    limit, used = int(info.get("maxmemory", "0")), int(info.get("used_memory", "0"))
    if limit and used > _FULL * limit:
        found.append(
            f"{used / limit:.0%} of maxmemory is used: when it is full, nothing is written."
        )
    return found + _replication_warnings(asked)


def _replication_warnings(asked: Asked) -> list[str]:
    found = []
    if asked.replicas < asked.wait:
        found.append(
            f"wait={asked.wait} is asked for and {asked.replicas} replicas are connected: no write "
            "counts. Bring replicas back."
        )
    if asked.form is not Form.ONE and not asked.replicas:
        found.append("No replica is connected: nobody takes over if the primary is lost.")
    if asked.fails_over and asked.settings.get("min-replicas-to-write") == "0":
        found.append(
            "min-replicas-to-write is 0: a primary that is cut off goes on taking writes, which are "
            "lost when it comes back. Set it to 1."
        )
    elif asked.fails_over and not asked.wait and _version(asked.info) < _HEEDS_IN_SCRIPTS:
        found.append(
            "This Redis does not heed min-replicas-to-write in scripts: a primary that is cut off goes on "
            "taking writes, which are lost when it comes back. Ask for wait=1, or use 7.0 or later."
        )
    if asked.settings.get("cluster-require-full-coverage") == "yes" and asked.form is Form.CLUSTER:
        found.append(
            "cluster-require-full-coverage is yes: while one master is away, all stand still. Set it "
            "to no."
        )
    return found


def _version(info: Mapping[str, str]) -> tuple[int, ...]:
    version = info.get("redis_version", "0")
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _unsafe(asked: Asked) -> list[str]:
    info, found = asked.info, []
    if _version(info) < _OLDEST:
        found.append(
            f"Redis {info.get('redis_version', '0')} is too old: use 6.2 or later, or Valkey."
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(f"maxmemory-policy is {policy}, which deletes data: set it to noeviction.")
    if info.get("role", "master") != "master":
        found.append("The server is a replica: point the URL at the primary.")
    if info.get("cluster_enabled", "0") == "1" and asked.form is not Form.CLUSTER:
        found.append("The server is in cluster mode: write redis+cluster:// in the URL.")
    if not asked.trusted and not _is_loopback(asked.peer_host):
        found.append(
            f"No password towards {asked.peer_host}: set requirepass, and put it into the URL."
        )
    return found


def _facts(asked: Asked) -> dict[str, str]:
    info, config = asked.info, asked.settings
    valkey, version = info.get("valkey_version"), info.get("redis_version", "?")
    append = {"1": "append-only file", "0": "no append-only file"}.get(
        info.get("aof_enabled", ""), "?"
    )
    limit = int(info.get("maxmemory", "0"))
    least = config.get("min-replicas-to-write", "?")
    return {
        "server": f"Valkey {valkey}" if valkey else f"Redis {version}",
        "persistence": append
        + (f", appendfsync {config['appendfsync']}" if "appendfsync" in config else ""),
        "eviction": info.get("maxmemory_policy", "?"),
        "memory": info.get("used_memory_human", "?")
        + (f" of {info.get('maxmemory_human', limit)}" if limit else ", no limit"),
        "replicas": f"{asked.replicas} connected, {asked.wait} waited for, min-replicas-to-write {least}",
    }


def _is_loopback(host: str) -> bool:
    return not host or ipaddress.ip_address(host.partition("%")[0]).is_loopback
