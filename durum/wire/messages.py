"""What travels between silos and clients. Owns the form of each message; knows neither frames nor rules.

All messages are arrays that begin with their number; a newer release may append fields, never move or
remove one. Numbers are the wire's contract: tests/shape/wire_contract.txt holds them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from durum.errors import DidRun
from durum.ids import Address, GrainId, SiloId

WIRE_VERSION: Final = 1
"""The protocol version this release speaks; it also speaks the one before, where there is one."""


class Message(msgspec.Struct, array_like=True, gc=False):
    """Anything that travels in a frame after the handshake."""


class Hop(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """One waiting turn in a call's chain.

    Args:
        grain: whose turn it is.
        turn: its number, unique in its silo's life.
    """

    grain: GrainId
    turn: int


class Carried(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """What travels along a chain of calls besides their arguments.

    Args:
        baggage: the authors' own entries.
        traceparent: by W3C Trace Context, or "".
        tracestate: likewise.
    """

    baggage: dict[str, str] = {}
    traceparent: str = ""
    tracestate: str = ""


class Call(Message, tag=1):
    """Please run a method and answer.

    Args:
        id: chosen by the sender, unique on this connection.
        grain: whom to call.
        method: the public method's name.
        args: the arguments, encoded as a msgpack array (positional) or map (named).
        timeout_ms: how long the sender still waits. A duration, since clocks differ.
        key: idempotency key, or "".
        chain: the turns that wait for this call, outermost first.
        hops: how often it was forwarded.
        request: an id that stays the same along the chain, for logs; or "".
        carried: baggage and trace, where there are any.
    """

    id: int
    grain: GrainId
    method: str
    args: bytes
    timeout_ms: int = 30_000
    key: str = ""
    chain: tuple[Hop, ...] = ()
    hops: int = 0
    request: str = ""
    carried: Carried | None = None


class Reply(Message, tag=2):
    """The method returned.

    Args:
        id: the call's.
        result: the encoded value.
    """

    id: int
    result: bytes


class Failure(Message, tag=3):
    """The call, or another request, ended without a value.

    Args:
        id: the request's.
        error: the error's class in durum.errors, or "" where the method itself raised.
        did_run: whether the method ran.
        text: the message for people.
        type_name: `module:qualname` of the method's exception, or "".
        args: the exception's arguments, encoded, or b"" where they cannot be.
        traceback: the silo's traceback, as text.
    """

    id: int
    error: str
    did_run: DidRun
    text: str
    type_name: str = ""
    args: bytes = b""
    traceback: str = ""


class Cancel(Message, tag=4):
    """The sender no longer waits for a call."""

    id: int


class Moved(Message, tag=5):
    """The call did not run here: the silo does not own the grain.

    Args:
        id: the call's.
        owner: where to go, or "" where this silo does not know.
        version: the view this is by.
        hosted: only for this grain, which has a place of its own; its partition's owner is another's
            business.
    """

    id: int
    owner: Address
    version: int
    hosted: bool = False


class Table(Message, tag=6):
    """Which silo should own which partition; pushed to clients after the handshake and at each change.

    Args:
        version: the view's.
        silos: addresses of active silos.
        owners: for each partition the index in `silos`, two bytes each, little-endian; 0xFFFF: nobody.
        kinds: for each silo the kinds it hosts.
        dead: silos that are declared dead; nobody need wait for their answers.
    """

    version: int
    silos: tuple[Address, ...]
    owners: bytes
    kinds: tuple[tuple[str, ...], ...]
    dead: tuple[SiloId, ...] = ()


class Goodbye(Message, tag=7):
    """The sender takes no new calls on this connection; those under way will still be answered.

    The other side closes the connection once nothing is under way.
    """

    reason: str = ""


class Probe(Message, tag=8):
    """Are you there? Answered by Ack from the loop that runs user code.

    Args:
        id: as in Call.
        version: the sender's view, so that the one behind catches up.
        target: whom to ask on the sender's behalf, or "" for yourself.
    """

    id: int
    version: int
    target: SiloId = SiloId("")


class Ack(Message, tag=9):
    """Yes.

    Args:
        id: the probe's.
        version: the answering silo's view.
        alive: for a probe on another's behalf: whether that one answered in time.
    """

    id: int
    version: int
    alive: bool = True


class HandOver(Message, tag=10):
    """Please drain and release these partitions: by this view they are mine. Answered by Released.

    Args:
        id: as in Call.
        version: the view this is by; the holder must have seen it before it lets go.
        partitions: which; those the holder does not hold are ignored.
    """

    id: int
    version: int
    partitions: tuple[int, ...]


class Released(Message, tag=11):
    """These partitions are free now. Sent as they fall idle, and once more in answer to HandOver.

    Args:
        id: the HandOver's, or 0.
        partitions: which, with the token that each record has now.
        more: True while others of that HandOver are still draining.
    """

    id: int
    partitions: tuple[tuple[int, bytes], ...]
    more: bool = False


class Gossip(Message, tag=12):
    """There is a view of this version; read the table if yours is older."""

    version: int


class Notice(Message, tag=13):
    """Please run a method. Nobody waits: there is no answer, whatever becomes of it.

    Args: as in Call. The last hop of a chain is the caller, whose turn does not wait.
    """

    grain: GrainId
    method: str
    args: bytes
    timeout_ms: int = 30_000
    chain: tuple[Hop, ...] = ()
    hops: int = 0
    request: str = ""
    carried: Carried | None = None


class Open(Message, tag=14):
    """Please run a streaming method and send its items. Answered, after them, by a Reply without a result
    where there are no more, or by a Failure or Moved.

    Args: as in Call; but timeout_ms is for each item.
        window: how many items may be sent before there is Credit for more.
    """

    id: int
    grain: GrainId
    method: str
    args: bytes
    timeout_ms: int = 30_000
    window: int = 1
    chain: tuple[Hop, ...] = ()
    hops: int = 0
    request: str = ""
    carried: Carried | None = None


class Item(Message, tag=15):
    """One item of a stream.

    Args:
        id: the stream's.
        value: the item, encoded.
    """

    id: int
    value: bytes


class Credit(Message, tag=16):
    """There is room for more items.

    Args:
        id: the stream's.
        items: for how many more.
    """

    id: int
    items: int


class Luggage(Message, tag=17):
    """What grains of a partition take along to its next owner, who may use it or not. Answered by Ack.

    Args:
        id: as in Call.
        partition: whose grains.
        token: under which the partition will be free; only who takes it from there may use this.
        values: by grain, encoded.
    """

    id: int
    partition: int
    token: bytes
    values: tuple[tuple[GrainId, bytes], ...]


AnyMessage = (
    Call
    | Reply
    | Failure
    | Cancel
    | Moved
    | Table
    | Goodbye
    | Probe
    | Ack
    | HandOver
    | Released
    | Gossip
    | Notice
    | Open
    | Item
    | Credit
    | Luggage
)
