"""Every setting with its unit and default, validated together. Knows no feature, only numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from durum import errors
from durum.ids import ROLE


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """How long silence may last before somebody acts. All times in seconds.

    Args:
        lease_s: L: a silo answers only this long after it sent its last successful renewal.
        renew_s: pause between renewals.
        store_timeout_s: an operation on the store that takes longer has failed.
        holdoff_factor: who takes over from the dead waits this many leases, counted from first
            seeing its last heartbeat. Above 1, for clocks that run at different rates.
        stall_factor: a heartbeat that stood still for this many leases condemns its silo by one vote.
        fast_failover: skip the hold-off where a process is known to be gone.
    """

    lease_s: float = 6.0
    renew_s: float = 2.0
    store_timeout_s: float = 1.5
    holdoff_factor: float = 1.05
    stall_factor: float = 1.25
    fast_failover: bool = True


class Probing(msgspec.Struct, frozen=True, kw_only=True):
    """How silos watch each other. All times in seconds.

    Args:
        poll_s: pause between looks at the membership table.
        probe_s: pause between probes, and how long each waits for its answer.
        misses: probes in a row without an answer before a silo votes.
        votes: votes that declare a silo dead; one where fewer than three are left.
        vote_life_s: a vote older than this does not count.
        targets: how many others each silo probes, chosen along a ring of silos.
        helpers: how many are asked to probe on one's behalf before a vote.
        prune_s: rows of the dead older than this are removed.
    """

    poll_s: float = 1.0
    probe_s: float = 1.0
    misses: int = 5
    votes: int = 2
    vote_life_s: float = 60.0
    targets: int = 3
    helpers: int = 2
    prune_s: float = 3600.0


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on everything that could grow.

    Args:
        call_timeout_s: deadline of a call that names none.
        forward_hops: how often a call may be told to go elsewhere before it waits.
        mailbox_calls: calls waiting before one grain.
        silo_calls: calls waiting or running in one silo.
        silo_bytes: bytes of arguments waiting or running in one silo.
        frame_bytes: one frame on the wire; also the largest argument or result.
        state_bytes: one grain's encoded state.
        entry_bytes: one entry of a Map or List.
        turn_entries: entries that one turn changes.
        turn_entry_bytes: of all of those.
        handshake_s: how long a stranger may take to introduce itself.
        connections: open connections of one silo.
        strangers: connections whose other end has proved nothing yet; beyond it, the oldest gives way.
        strangers_per_host: of those, how many from one host (one /64 network in IPv6).
        arrivals_per_s: connections accepted from one host in a second; twice that in a burst.
        unread_bytes: written to a connection and not read by the other side; beyond it, nothing is
            read from that side either.
        unread_s: the other side is cut off once it reads nothing for so long beyond that.
        idle_after_s: activations unused this long are collected.
        drain_timeout_s: how long running turns may take once a silo leaves.
        replies_kept: remembered replies of one grain; at this many, new keyed calls are refused.
        reply_bodies_kept: of those, how many keep the reply itself.
        reply_window_s: how long a remembered reply is kept.
        activations: actors in memory of one silo; beyond it, the longest idle ones are put away early.
        streams: streams of results open in one silo.
        stream_window: items of one stream that may be on their way to its reader.
        outbox_rows: messages of one partition that are not delivered yet; at this many, turns and clients
            that send another are refused.
        message_attempts: so often a message's method may fail before the message becomes a dead letter.
        message_retry_s: pause after its first failure; after each further one it is twice as long...
        message_retry_max_s: ... up to this.
        watchers: watches of one silo's actors.
        watchers_per_grain: of those, watches of one actor.
        watch_events: events that wait for one slow watcher; beyond it, the oldest are left out, and a Gap
            tells.
        watch_bytes: bytes of those events.
        reminders: of one actor.
        reminder_bytes: the payload of one.
        wake_ups: reminders and delayed messages that one silo delivers at a time.
        luggage_bytes: what one actor's on_dehydrate returns, encoded.
        luggage_total_bytes: of all that leaves one silo at a time, and of all that waits at one.
        luggage_count: actors whose values these are.
        luggage_s: how long each step may take: on_dehydrate, the way, the wait there, on_rehydrate.
    """

    call_timeout_s: float = 30.0
    forward_hops: int = 2
    mailbox_calls: int = 1_000
    silo_calls: int = 20_000
    silo_bytes: int = 256 * 1024 * 1024
    frame_bytes: int = 4 * 1024 * 1024
    state_bytes: int = 8 * 1024 * 1024
    entry_bytes: int = 1024 * 1024
    turn_entries: int = 10_000
    turn_entry_bytes: int = 16 * 1024 * 1024
    handshake_s: float = 3.0
    connections: int = 10_000
    strangers: int = 512
    strangers_per_host: int = 128
    arrivals_per_s: float = 200.0
    unread_bytes: int = 64 * 1024 * 1024
    unread_s: float = 10.0
    idle_after_s: float = 900.0
    drain_timeout_s: float = 20.0
    replies_kept: int = 10_000
    reply_bodies_kept: int = 64
    reply_window_s: float = 86_400.0
    activations: int = 1_000_000
    streams: int = 10_000
    stream_window: int = 32
    outbox_rows: int = 10_000
    message_attempts: int = 12
    message_retry_s: float = 0.1
    message_retry_max_s: float = 60.0
    watchers: int = 20_000
    watchers_per_grain: int = 1_000
    watch_events: int = 256
    watch_bytes: int = 1024 * 1024
    reminders: int = 1_000
    reminder_bytes: int = 65_536
    wake_ups: int = 64
    luggage_bytes: int = 256 * 1024
    luggage_total_bytes: int = 64 * 1024 * 1024
    luggage_count: int = 10_000
    luggage_s: float = 5.0


class SiloConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All of a silo's settings.

    Args:
        lease: see Lease.
        probing: see Probing.
        limits: see Limits.
        partitions: P of a service that this process creates; an existing one keeps its own.
        weight: this silo's share of partitions relative to the others; with 0 it gets none, and hosts only
            actors that are placed one by one.
        roles: names that OnSilos(role=...) may ask for.
        check_read_only: compare the state after each read_only turn, and raise if it changed.
        loop_blocked_s: user code that holds the loop longer is logged with its stack.
    """

    lease: Lease = Lease()
    probing: Probing = Probing()
    limits: Limits = Limits()
    partitions: int = 1024
    weight: float = 1.0
    roles: tuple[str, ...] = ()
    check_read_only: bool = False
    loop_blocked_s: float = 0.5

    def __post_init__(self) -> None:
        """Refuse settings that together break a promise.

        Raises:
            ConfigError: naming the settings and what must hold.
        """
        lease, probing, limits = self.lease, self.probing, self.limits
        for section in (lease, probing, limits):
            for name in section.__struct_fields__:
                value = getattr(section, name)
                if not isinstance(value, bool) and value <= 0:
                    raise errors.ConfigError(f"{name} is {value}; it must be above 0.")
        rules = (
            (
                lease.renew_s + lease.store_timeout_s < lease.lease_s,
                "renew_s + store_timeout_s must be below lease_s, or one slow renewal ends the lease",
            ),
            (
                lease.holdoff_factor >= 1.02,
                "holdoff_factor must be at least 1.02: clocks may differ by 2 %",
            ),
            (
                lease.stall_factor > lease.holdoff_factor,
                "stall_factor must be above holdoff_factor: a stalled silo has to have fenced itself",
            ),
            (
                probing.misses * probing.probe_s >= 2 * lease.renew_s,
                "misses x probe_s must be at least 2 x renew_s, or short stalls evict",
            ),
            (
                probing.vote_life_s > 2 * probing.misses * probing.probe_s,
                "vote_life_s must exceed 2 x misses x probe_s, or votes never meet",
            ),
            (1 <= self.partitions <= 65_534, "partitions must be 1 to 65534"),
            (self.weight >= 0, "weight must be 0 or more"),
            (
                all(type(role) is str and ROLE.fullmatch(role) for role in self.roles),
                "roles must be texts of 1 to 64 ASCII letters, digits, `_`, `.` or `-`",
            ),
        )
        broken = [text for holds, text in rules if not holds]
        if broken:
            raise errors.ConfigError("; ".join(broken) + ".")


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Certificates: whose this process shows, and whose it believes. The files are PEM.

    They are read again when they have changed, so that a certificate is renewed without a restart.

    Args:
        cert: this side's certificate, and those between it and the CA. Silos need one.
        key: its private key, not encrypted; None: it is in the same file.
        ca: whom to believe. A silo with it lets only those in who show a certificate from there,
            and that is enough: no secret is needed. None: the system's CAs for silos that this
            process calls, and no certificates asked of those who call it.
        verify_peer: False believes anybody: the link is secret, and only the cluster secret, which
            is then needed, proves who is there.
        server_name: a name that the certificates of all silos have; None: each has the host under
            which it is reached.

    Raises:
        ConfigError: a key without a certificate is given.
    """

    cert: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    ca: str | os.PathLike[str] | None = None
    verify_peer: bool = True
    server_name: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.key is not None and self.cert is None:
            raise errors.ConfigError("a TLS key was given without a certificate; give both.")

    @property
    def mutual(self) -> bool:
        """Whether both sides must show a certificate, so that no secret is needed."""
        return self.cert is not None and self.ca is not None and self.verify_peer


def tls_of(tls: Tls | None) -> Tls | None:
    """The TLS settings to use.

    Args:
        tls: None takes DURUM_TLS_CERT, DURUM_TLS_KEY, DURUM_TLS_CA and DURUM_TLS_SERVER_NAME from the
            environment, if any is set.
    """
    if tls is not None:
        return tls
    cert, key, ca, server_name = (
        os.environ.get(f"DURUM_TLS_{name}") or None for name in ("CERT", "KEY", "CA", "SERVER_NAME")
    )
    if not (cert or key or ca or server_name):
        return None
    return Tls(cert=cert, key=key, ca=ca, server_name=server_name)


def secrets_of(secret: str | bytes | Sequence[str | bytes] | None) -> tuple[bytes, ...]:
    """The cluster secrets to use, best first.

    Args:
        secret: one, or two during a rotation; None takes DURUM_SECRET from the environment, if set.
    """
    if secret is None:
        secret = os.environ.get("DURUM_SECRET", "")
    given = (secret,) if isinstance(secret, str | bytes) else tuple(secret)
    return tuple(one.encode() if isinstance(one, str) else one for one in given if one)
