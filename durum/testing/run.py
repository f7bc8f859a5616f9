"""One simulated run from its first step to its last. Owns the loop's life and what must be left behind:
nothing. Knows no host by name.
"""

# ruff: noqa: SLF001 - a task of a killed host has to be put to rest behind asyncio's back

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from durum.testing.loop import Limits, Order, SimLoop, SimulationError
from durum.testing.tasks import SimTask, where

T = TypeVar("T")

_CLOSE_ATTEMPTS: Final = 20
_unclosable: Final[list[object]] = []
"""Coroutines that await anew whenever they are closed. Let go, they would complain later, in whatever
test runs then."""


class LeakedTasks(SimulationError):
    """The main coroutine has ended, but tasks that it or its hosts started have not."""


def run(
    main: Coroutine[Any, Any, T],
    seed: int,
    *,
    order: Order = Order.HOSTS,
    limits: Limits = Limits(),  # noqa: B008 - immutable
    leaks: bool = False,
) -> T:
    """Run a coroutine on virtual time, from a seed, and look that nothing is left.

    The cyclic garbage collector stands still meanwhile, since what it finalizes when is chance.
    Coroutines of killed hosts are closed when all is over; what their `finally` blocks do then
    reaches no one.

    Args:
        main: it runs in the world; `loop.current().start(host, coro)` starts processes.
        seed: decides everything that is left open.
        order: see Order.
        limits: when the run is given up.
        leaks: allow tasks to be left over when main has ended.

    Raises:
        Stuck, RanTooLong: see there.
        LeakedTasks: tasks were left over.
        SimulationError: a callback raised what nobody caught.
    """
    loop = SimLoop(seed, order, limits)
    collects = gc.isenabled()
    gc.disable()
    try:
        result = loop.run_until_complete(main)
        _look_back(loop, leaks=leaks)
    except BaseException as exc:
        exc.add_note(f"simulation: seed {seed}, {loop.time():.6f} s, step {loop.steps}")
        raise
    else:
        return result
    finally:
        main.close()
        _bury(loop)
        loop.close()
        if collects:
            gc.enable()


def _look_back(loop: SimLoop, *, leaks: bool) -> None:
    """Raise for what was left over and for errors that nobody has looked at."""
    for task in loop._tasks.values():
        if task.done() and not task.cancelled() and not loop.is_dead(task.host):
            error = task.exception() if _unseen(task) else None
            if error is not None:
                raise SimulationError(f"nobody awaited {where(task)}, which failed") from error
    left = loop.pending()
    if left and not leaks:
        raise LeakedTasks(
            f"{len(left)} tasks are left over; cancel and await them, or kill their host.\n  "
            + "\n  ".join(where(task) for task in left[:20])
        )


def _unseen(task: SimTask) -> bool:
    """Whether a task's exception would be logged as never retrieved."""
    return bool(getattr(task, "_log_traceback", False))


def _bury(loop: SimLoop) -> None:
    """Close every coroutine that has not ended, so that none of them complains when it is freed."""
    loop.failures.clear()
    for host in sorted({task.host for task in loop.pending()} | set(loop._frozen)):
        loop._dead.setdefault(host, []).extend(loop._frozen.pop(host, []))
    done: set[SimTask] = set()
    # As the running loop: `finally` blocks look for one. All hosts are dead, so nothing they start runs.
    asyncio.events._set_running_loop(loop)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(_CLOSE_ATTEMPTS):
                open_tasks = [task for task in _all_tasks(loop) if task not in done]
                if not open_tasks:
                    break
                for task in open_tasks:
                    _close(task)
                    done.add(task)
            loop._dead.clear()
    finally:
        asyncio.events._set_running_loop(None)


def _all_tasks(loop: SimLoop) -> list[SimTask]:
    dead = [one for grave in loop._dead.values() for one in grave if isinstance(one, SimTask)]
    known = {task.number: task for task in (*dead, *loop._tasks.values()) if not task.done()}
    return [known[number] for number in sorted(known)]


def _close(task: SimTask) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coro = task.get_coro()
    assert coro is not None  # noqa: S101 - only eager tasks have none, and only once they are done
    for _ in range(_CLOSE_ATTEMPTS):
        try:
            coro.close()
        except RuntimeError:
            # It awaited in a `finally`; it is closed again where it waits now.
            continue
        except BaseException:  # noqa: BLE001 - the last words of a dead process
            return
        else:
            return
    _unclosable.append(coro)
