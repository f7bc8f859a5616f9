"""Reads a Redis URL. Owns what of it is shown and what is secret; connects to nothing."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec
from redis.asyncio import connection

from durum import errors
from durum.store.redis_line import Command
from durum.store.redis_pipe import Endpoint


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed URL.

    Args:
        endpoint: for our own connections.
        redis_py: arguments of redis-py's client for the same server.
        has_password: whether the URL holds one.
    """

    endpoint: Endpoint
    redis_py: dict[str, Any]
    has_password: bool


def parse(url: str) -> Place:
    """Read a URL.

    Raises:
        ConfigError: it is not one.
    """
    scheme, _, rest = url.partition("://")
    shown = f"{scheme}://{rest.rpartition('@')[2]}"
    try:
        found: dict[str, Any] = dict(connection.parse_url(url))
        parts = urlsplit(url)
        port = parts.port or 6379
        _check(scheme, parts.path, found)
        db = int(found.get("db", 0))
    except ValueError as exc:
        raise errors.ConfigError(
            f"{shown!r} is no Redis URL ({exc}). Write redis://[USER:PASSWORD@]HOST[:PORT][/DB], or "
            "unix:///SOCKET[?db=DB]."
        ) from exc
    path = found.get("path", "")
    host = found.get("host", "" if path else "localhost")
    user, password = found.get("username"), found.get("password")
    login: list[Command] = []
    if password is not None:
        login.append(("AUTH", user, password) if user else ("AUTH", password))
    if db:
        login.append(("SELECT", db))
    client: dict[str, Any] = {"db": db, "username": user, "password": password}
    if path:
        client["unix_socket_path"] = path
    else:
        client.update(host=host, port=port)
    return Place(
        endpoint=Endpoint(url=shown, host=host, port=port, path=path, login=tuple(login)),
        redis_py=client,
        has_password=password is not None,
    )


def _check(scheme: str, path: str, found: dict[str, Any]) -> None:
    # redis-py passes over what it does not understand, and then talks to another database.
    if set(found) - {"host", "port", "db", "path", "username", "password", "connection_class"}:
        raise ValueError("only db may stand behind the question mark")
    if scheme == "unix" and not path:
        raise ValueError("it names no socket")
    if scheme != "unix" and not re.fullmatch(r"/?\d*", path):
        raise ValueError("a database is a number")
