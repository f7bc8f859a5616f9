"""Redis's error replies in Durum's words. Owns the mapping; knows no connection."""

from __future__ import annotations

import re
from typing import Final

from durum import errors

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
    "MOVED": "it is a cluster node. Use a server without cluster mode",
    "ASK": "it is a cluster node. Use a server without cluster mode",
    "CROSSSLOT": "it is a cluster node. Use a server without cluster mode",
    "TRYAGAIN": "it is a cluster node that moves data. Silos go on by themselves",
    "CLUSTERDOWN": "its cluster is down. Bring it back",
    "UNKILLABLE": "it is busy with somebody's script. Wait",
    "NOPROTO": "it is too old. Use Redis 6.2 or later, or Valkey",
}
# Redis 6 wraps an error inside a script: "ERR Error running script (...): @user_script:3: -OOM ...",
# with the dash or without it.
_WRAPPED: Final = re.compile(r"(?:^|: -?)([A-Z]{3,})\b")
_SETTINGS: Final = frozenset(("NOAUTH", "WRONGPASS", "NOPERM", "DENIED", "NOPROTO"))


def code_of(text: str) -> str:
    """The error's code, also where a script wrapped it; "ERR" where there is none."""
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
        return errors.DataLoss(
            f"{url}: a key of Durum's holds something else ({text}). The operation changed nothing. "
            "Look for another program that writes to this database."
        )
    if code in _REFUSED:
        return errors.StoreUnavailable(
            f"{url}: {_REFUSED[code]} ({text}). The operation was not applied.", applied=False
        )
    return errors.StoreUnavailable(
        f"{url}: the server answered {text!r}. It is unknown whether the operation was applied.",
        applied=None,
    )


def refused_introduction(text: str, url: str) -> errors.DurumError:
    """What the server said to AUTH, SELECT or the loading of scripts."""
    if code_of(text) in _SETTINGS or text.startswith("ERR"):
        words = _REFUSED.get(code_of(text), "it refuses the connection. Correct the URL")
        return errors.ConfigError(f"{url}: {words} ({text}).")
    return unreachable(url, text)


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
