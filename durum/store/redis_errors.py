"""Redis's error replies in Durum's words. Owns the mapping; knows no connection."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final, Literal

from durum import errors
from durum.store.damage import Damaged

# Each of these says that the command, or the script before its first write, was not run.
_REFUSED: Final = {
    "READONLY": "it is a read-only replica. Point the URL at the primary",
    "OOM": "it is out of memory (maxmemory). Give it more, or delete data",
    "MISCONF": "it cannot write to its disk. Free some space; silos go on by themselves",
    "BUSY": "it is busy with somebody's script. Wait, or SCRIPT KILL it",
    "LOADING": "it is still loading its data. Silos go on by themselves",
    "NOREPLICAS": "too few replicas are connected (min-replicas-to-write). Bring them back",
    "MASTERDOWN": "it is a replica without its primary. Point the URL at the primary",
    "NOSCRIPT": "it does not know a script",
    "NOAUTH": "it wants a password. Put it into the URL",
    "WRONGPASS": "it refuses user or password. Correct the URL",
    "NOPERM": "its ACL does not allow this. Grant the user what the documentation lists",
    "DENIED": "it runs in protected mode. Set a password and put it into the URL",
    "MOVED": "it is a node of a cluster. Write redis+cluster:// in the URL",
    "ASK": "it is a node of a cluster. Write redis+cluster:// in the URL",
    "CROSSSLOT": "it is a node of a cluster. Write redis+cluster:// in the URL",
    "TRYAGAIN": "it is moving data to another node. Silos go on by themselves",
    "CLUSTERDOWN": "its cluster is down. Bring its nodes back; silos go on by themselves",
    "UNKILLABLE": "it is busy with somebody's script. Wait",
    "NOPROTO": "it is too old. Use Redis 6.2 or later, or Valkey",
}
# Redis 6 wraps an error inside a script: "ERR Error running script (...): @user_script:3: -OOM ...",
# with the dash or without it.
_WRAPPED: Final = re.compile(r"(?:^|: -?)([A-Z]{3,})\b")
# Of these, a cluster's or a promoted server's clients find the right server, or wait for it.
PASSING: Final = frozenset(
    ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "READONLY", "LOADING", "MASTERDOWN")
)
# A slot is on its way, and a key that a script names itself has gone or come already. Our scripts touch
# those before all others, in ways that may be repeated.
_ELSEWHERE: Final = "access a non local key"
_NO_NUMBER: Final = "value is not an integer"
_SETTINGS: Final = frozenset(("NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "NOPROTO"))


class Refused(errors.StoreUnavailable):
    """The server answered with an error.

    Args:
        message: in our words.
        applied: False where that says that nothing was done.
        code: the error's code.
    """

    def __init__(self, message: str, applied: Literal[False] | None, code: str) -> None:
        super().__init__(message, applied)
        self.code = code


def code_of(text: str) -> str:
    """The error's code, also where a script wrapped it; "ERR" where there is none."""
    if _ELSEWHERE in text:
        return "TRYAGAIN"
    codes = [code for code in _WRAPPED.findall(text) if code != "ERR"]
    return codes[0] if codes else "ERR"


def translate(text: str, url: str) -> errors.DurumError:
    """Say in Durum's words what the server said.

    Args:
        text: the error reply.
        url: the store's, without its password.
    """
    code = code_of(text)
    if code == "WRONGTYPE":
        return Damaged(
            f"{url}: a key of Durum's holds something else ({text}). The operation changed nothing. "
            "Look for another program that writes to this database."
        )
    if _NO_NUMBER in text:
        return Damaged(
            f"{url}: a record of Durum's holds something else than a number ({text}). The operation changed "
            "nothing. Look for another program that writes to this database, or restore the record."
        )
    if code in _REFUSED:
        return Refused(
            f"{url}: {_REFUSED[code]} ({text}). The operation was not applied.", False, code
        )
    return Refused(
        f"{url}: the server answered {text!r}. It is unknown whether the operation was applied.",
        None,
        code,
    )


def refused_introduction(text: str, url: str) -> errors.DurumError:
    """What the server said to AUTH, SELECT or the loading of scripts."""
    if code_of(text) in _SETTINGS or text.startswith("ERR"):
        words = _REFUSED.get(code_of(text), "it refuses the connection. Correct the URL")
        return errors.ConfigError(f"{url}: {words} ({text}).")
    return unreachable(url, text)


def refuse(future: asyncio.Future[Any], url: str, reason: object) -> None:
    """Tell who still waits that nothing was sent."""
    if not future.done():
        future.set_exception(unreachable(url, reason))


def unreachable(url: str, reason: object) -> errors.StoreUnavailable:
    """There was no connection in time, so nothing was sent."""
    return errors.StoreUnavailable(
        f"{url}: no connection ({reason}). The operation was not sent. Silos go on by themselves "
        "once the server answers.",
        applied=False,
    )


def broken(url: str, reason: object) -> errors.StoreUnavailable:
    """The connection broke before the answer came."""
    return errors.StoreUnavailable(
        f"{url}: the connection broke ({reason}). It is unknown whether the operation was applied.",
        applied=None,
    )


def distrusted(url: str, reason: object) -> errors.ConfigError:
    """The server's certificate does not pass."""
    return errors.ConfigError(
        f"{url}: the server's certificate is not trusted ({reason}). Name its authority with ?ca=FILE, "
        "and reach it under a name that its certificate has. Nothing was sent."
    )


def too_few(url: str, found: int, wanted: int) -> errors.StoreUnavailable:
    """The primary has the write, and fewer replicas than were asked for."""
    return errors.StoreUnavailable(
        f"{url}: the write is on the primary and on {found} replicas in time, {wanted} were asked for "
        "(wait). It stands unless the primary is lost. Bring the replicas back, or ask for fewer.",
        applied=None,
    )


def unsettled(url: str, text: str) -> errors.StoreUnavailable:
    """A cluster did not take a command anywhere."""
    return errors.StoreUnavailable(
        f"{url}: no master of the cluster took the operation in time ({text}). It was not applied. Look "
        "at CLUSTER INFO; silos go on by themselves.",
        applied=False,
    )
