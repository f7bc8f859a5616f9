"""Makes calls as told on standard input, one JSON line for each order and each answer.

Owns the closed loop and the keys that it goes over; knows no contender.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec
import uvloop

_CALLED: Final = 1000


def keys(actors: int = _CALLED, called: int = _CALLED) -> tuple[str, ...]:
    """Keys to call, evenly spread over those of all actors.

    Args:
        actors: how many there are.
        called: how many of them are called, in turn.
    """
    count = min(actors, called)
    return tuple(f"user-{number * actors // count:06d}" for number in range(count))


KEYS: Final = keys()

Call = Callable[[str], Awaitable[object]]
"""One call to the actor under a key."""


class Order(msgspec.Struct):
    """What to do: so many callers, each with one call under way at a time, for so long."""

    in_flight: int
    seconds: float


class Played(msgspec.Struct):
    """What was done."""

    calls: int
    seconds: float


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a process of the benchmark; both contenders get the same loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def say(line: dict[str, object]) -> None:
    """Tell whoever started this process."""
    print(json.dumps(line), flush=True)


async def closed_loop(call: Call, order: Order, over: Sequence[str]) -> Played:
    """Keep that many calls under way."""
    clock, count = time.perf_counter, len(over)
    began = clock()
    end = began + order.seconds

    async def caller(first: int) -> int:
        calls = 0
        # The clock is read after each call: it costs 0.05 us, the same for all contenders.
        while clock() < end:
            await call(over[(first + calls) % count])
            calls += 1
        return calls

    # Spread out, so that callers seldom meet at one actor.
    starts = [each * count // order.in_flight for each in range(order.in_flight)]
    calls = sum(await asyncio.gather(*map(caller, starts)))
    return Played(calls, clock() - began)


async def obey(
    call: Call,
    over: Sequence[str] = KEYS,
    after: Callable[[int], Awaitable[None]] | None = None,
) -> None:
    """Carry out orders until standard input ends.

    Args:
        call: one call.
        over: the keys that are called, in turn.
        after: called with the number of calls; returns once all is done that they caused, which counts too.
    """
    loop = asyncio.get_running_loop()
    # All clients collect garbage alike. By Python's own settings the figures differ by a per cent or so.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    # A thread waits for the next order while the loop runs, since connections have their timers.
    say({"ready": True})
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        began = time.perf_counter()
        played = await closed_loop(call, msgspec.json.decode(line, type=Order), over)
        if after is not None:
            await after(played.calls)
            played.seconds = time.perf_counter() - began
        say(msgspec.to_builtins(played))
