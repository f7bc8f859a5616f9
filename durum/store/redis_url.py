"""Reads a Redis URL. Owns what of it is shown and what is secret; connects to nothing."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl, unquote, urlencode

import msgspec

from durum import errors
from durum.ids import Address, join_address
from durum.store import redis_tls
from durum.store.redis_line import Command

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379


class Form(StrEnum):
    """How the servers behind a URL belong together."""

    ONE = "one"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_SCHEMES: Final = {
    "redis": (Form.ONE, False),
    "rediss": (Form.ONE, True),
    "unix": (Form.ONE, False),
    "redis+sentinel": (Form.SENTINEL, False),
    "rediss+sentinel": (Form.SENTINEL, True),
    "redis+cluster": (Form.CLUSTER, False),
    "rediss+cluster": (Form.CLUSTER, True),
}
SCHEMES: Final = tuple(_SCHEMES)
"""What a URL of ours begins with."""

FORMS: Final = (
    "redis://[USER:PASSWORD@]HOST[:PORT][/DB], unix:///SOCKET[?db=DB], "
    "redis+sentinel://[USER:PASSWORD@]HOST[:PORT],.../NAME[/DB], or "
    "redis+cluster://[USER:PASSWORD@]HOST[:PORT],...; rediss for TLS"
)
_TLS_OPTIONS: Final = frozenset(("ca", "cert", "key"))
_SENTINEL_OPTIONS: Final = frozenset(("sentinel_username", "sentinel_password"))
_LONGEST_WAIT: Final = 9
_HOST: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<host>[A-Za-z0-9._-]+))(?::(?P<port>\d{1,5}))?"
)


class Account(msgspec.Struct, frozen=True):
    """A user and password. Never shown.

    Args:
        user: "" for the default user.
        password: None where there is none.
    """

    user: str = ""
    password: str | None = None

    def __repr__(self) -> str:
        return "<Account>"

    def login(self, db: int = 0) -> tuple[Command, ...]:
        """The commands that introduce us."""
        commands: list[Command] = []
        if self.password is not None:
            name = (self.user,) if self.user else ()
            commands.append(("AUTH", *name, self.password))
        if db:
            commands.append(("SELECT", db))
        return tuple(commands)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed URL.

    Args:
        url: for messages: without secrets.
        form: how the servers belong together.
        nodes: a server, or sentinels, or some nodes of a cluster; empty with a socket's path.
        path: a socket, or "".
        name: what Sentinel calls the primary, or "".
        db: the database's number.
        account: for the servers.
        sentinel_account: for the sentinels.
        tls: certificates, or None without TLS.
        replicas: how many must have a write before it counts; None where the URL does not say.
    """

    url: str
    form: Form
    nodes: tuple[tuple[str, int], ...] = ()
    path: str = ""
    name: str = ""
    db: int = 0
    account: Account = Account()
    sentinel_account: Account = Account()
    tls: redis_tls.Files | None = None
    replicas: int | None = None

    @property
    def trusted(self) -> bool:
        """Whether the servers can tell us from a stranger."""
        return self.account.password is not None or (self.tls is not None and bool(self.tls.cert))

    @property
    def login(self) -> tuple[Command, ...]:
        """The commands that introduce us to a server."""
        return self.account.login(self.db)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The nodes, as text."""
        return tuple(join_address(host, port) for host, port in self.nodes)


def parse(url: str) -> Place:
    """Read a URL.

    Raises:
        ConfigError: it is not one. The message shows no secret, wherever in the URL it stands.
    """
    scheme, _, rest = url.partition("://")
    try:
        return _parse(scheme, rest)
    except ValueError as exc:
        # Which part is a password, nobody knows of a URL that cannot be read.
        shown = f"{scheme}://..." if "@" in rest or "?" in rest else url
        raise errors.ConfigError(f"{shown!r} is no Redis URL ({exc}). Write {FORMS}.") from exc


def _parse(scheme: str, rest: str) -> Place:
    if scheme not in _SCHEMES:
        raise ValueError("its beginning is unknown")
    form, secure = _SCHEMES[scheme]
    main, asked, query = rest.partition("?")
    options = _options(query) if asked else {}
    _check_options(scheme, options, form, secure=secure)
    who, _, where = main.rpartition("@")
    shown = {name: value for name, value in options.items() if name not in _SENTINEL_OPTIONS}
    authority, _, path = ("", "", where) if scheme == "unix" else where.partition("/")
    if scheme == "unix" and not path:
        raise ValueError("it names no socket")
    name, db = "", path
    if form is Form.SENTINEL:
        name, _, db = path.partition("/")
        if not name:
            raise ValueError("it does not say what Sentinel calls the primary")
    if scheme == "unix" or not db:
        db = options.get("db", "0")
    if not db.isdecimal():
        raise ValueError("a database is a number")
    if form is Form.CLUSTER and int(db):
        raise ValueError("a cluster has only database 0")
    port = SENTINEL_PORT if form is Form.SENTINEL else REDIS_PORT
    return Place(
        url=f"{scheme}://{where}" + (f"?{urlencode(shown, safe='/:')}" if shown else ""),
        form=form,
        nodes=() if scheme == "unix" else _nodes(authority, port, several=form is not Form.ONE),
        path=unquote(path) if scheme == "unix" else "",
        name=unquote(name),
        db=int(db),
        account=_account(who),
        sentinel_account=Account(
            options.get("sentinel_username", ""), options.get("sentinel_password")
        ),
        tls=redis_tls.Files(**{name: options.get(name, "") for name in _TLS_OPTIONS})
        if secure
        else None,
        replicas=int(options["wait"]) if "wait" in options else None,
    )


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    except ValueError:
        # Its words show what it could not read, and that may be half a password.
        raise ValueError("its options are not NAME=VALUE") from None
    options = dict(pairs)
    if len(options) != len(pairs):
        raise ValueError("an option stands there twice")
    return options


def _check_options(scheme: str, options: dict[str, str], form: Form, *, secure: bool) -> None:
    allowed = {"wait"}
    if secure:
        allowed |= _TLS_OPTIONS
    if form is Form.SENTINEL:
        allowed |= _SENTINEL_OPTIONS
    if form is Form.ONE:
        allowed.add("db")
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise ValueError(
            f"behind the question mark of {scheme}:// may stand {', '.join(sorted(allowed))}"
        )
    if "key" in options and "cert" not in options:
        raise ValueError("key needs cert")
    wait = options.get("wait", "0")
    if not wait.isdecimal() or int(wait) > _LONGEST_WAIT:
        raise ValueError(f"wait is a number of replicas, 0 to {_LONGEST_WAIT}")


def _account(who: str) -> Account:
    user, colon, password = who.partition(":")
    return Account(unquote(user), unquote(password) if colon else None)


def _nodes(authority: str, port: int, *, several: bool) -> tuple[tuple[str, int], ...]:
    found = []
    for text in authority.split(",") if several else [authority]:
        match = _HOST.fullmatch(text or "localhost")
        if match is None:
            raise ValueError("it does not say HOST or HOST:PORT where it should")
        number = int(match["port"] or port)
        if not 0 < number <= 65535:
            raise ValueError("a port is a number from 1 to 65535")
        found.append((match["six"] or match["host"], number))
    return tuple(dict.fromkeys(found))
