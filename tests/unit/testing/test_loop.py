"""The virtual-time loop: time, order, hosts that stop and die, and what it refuses."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator
from typing import Any

import pytest

from durum.testing import hosts, loop
from durum.testing.loop import Limits, Order, RanTooLong, SimLoop, SimulationError, Stuck
from durum.testing.run import LeakedTasks, run


def test_loop_passes_an_hour_in_no_time() -> None:
    """Simulation is only worth it if waiting costs nothing."""

    async def main() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert run(main(), 1) == 3600


def test_loop_runs_what_asyncio_offers() -> None:
    """The real silo code runs on it, unmodified."""

    async def main() -> list[Any]:
        found: list[Any] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        queue: asyncio.Queue[int] = asyncio.Queue(1)

        async def fill() -> None:
            for number in range(3):
                await queue.put(number)

        async with asyncio.TaskGroup() as group:
            group.create_task(fill())
            found.extend([await queue.get() for _ in range(3)])
        done, pending = await asyncio.wait(
            [asyncio.create_task(asyncio.sleep(delay, delay)) for delay in (1, 2)], timeout=1.5
        )
        found.extend(task.result() for task in done)
        found.extend(await asyncio.gather(*pending))
        return found

    assert run(main(), 1) == [0, 1, 2, 1, 2]


async def race(log: list[str]) -> None:
    async def runner(name: str) -> None:
        for lap in range(5):
            log.append(f"{name}{lap}")
            await asyncio.sleep(1)

    running = loop.current()
    await asyncio.gather(*(running.start(name, runner(name)) for name in "abcd"))


def raced(seed: int, order: Order = Order.HOSTS) -> list[str]:
    log: list[str] = []
    run(race(log), seed, order=order)
    return log


def test_loop_repeats_a_run_from_its_seed() -> None:
    """A failing seed that cannot be run again is a rumour."""
    assert raced(7) == raced(7)
    assert len({tuple(raced(seed)) for seed in range(20)}) > 10


def test_loop_keeps_arrival_order_where_it_is_told_to() -> None:
    """A test of one exact interleaving needs asyncio's own order."""
    assert raced(1, Order.FIFO) == raced(2, Order.FIFO)


def test_loop_keeps_the_order_of_call_soon_within_a_host() -> None:
    """asyncio promises it, and protocols and transports rely on it."""

    async def main() -> list[int]:
        log: list[int] = []
        running = loop.current()
        for number in range(50):
            running.call_soon(log.append, number)
            running.call_soon(int, context=hosts.context("other"))
        await asyncio.sleep(1)
        return log

    assert run(main(), 3) == list(range(50))
    assert run(main(), 3, order=Order.ALL) != list(range(50))


DIGEST = """
import asyncio
from durum.testing import loop
from durum.testing.run import run

async def main():
    async def one(number):
        try:
            await asyncio.sleep(number)
        except asyncio.CancelledError:
            log.append(number)
            raise
    log = []
    tasks = [asyncio.create_task(one(number)) for number in range(1, 40)]
    done, pending = await asyncio.wait(tasks, timeout=10)
    for task in done | pending:
        task.cancel()
    await asyncio.wait(pending)
    return log, loop.current().digest

print(run(main(), 5))
"""


def test_loop_repeats_a_run_in_another_process() -> None:
    """asyncio keeps tasks in sets; by memory address each process would cancel in its own order."""
    found = {
        subprocess.run(
            [sys.executable, "-c", DIGEST],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "99")
    }
    assert len(found) == 1


def test_loop_names_tasks_the_same_in_every_run() -> None:
    """asyncio's own names count on through the whole process, and would show in logs and orders."""

    async def main() -> str:
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        return task.get_name()

    assert run(main(), 1) == run(main(), 1)


def test_loop_reports_a_deadlock_with_who_waits_where() -> None:
    """A test that hangs says nothing; one that ends with the place says all."""

    async def main() -> None:
        await loop.current().start("a", asyncio.Event().wait(), name="waits for godot")

    with pytest.raises(Stuck, match="waits for godot") as caught:
        run(main(), 4)
    assert "seed 4" in caught.value.__notes__[0]


def test_loop_gives_up_a_run_that_spins() -> None:
    """A busy loop never lets time pass, so only a count can end it."""

    async def spin() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(RanTooLong, match="something spins"):
        run(spin(), 1, limits=Limits(steps=1000))


def test_loop_gives_up_a_run_that_never_ends() -> None:
    """A polling loop lets time pass for ever."""

    async def poll() -> None:
        while True:
            await asyncio.sleep(1)

    with pytest.raises(RanTooLong, match="limit of 100 virtual seconds"):
        run(poll(), 1, limits=Limits(virtual_s=100))


@pytest.mark.parametrize(
    "use",
    [
        lambda running: running.run_in_executor(None, int),
        lambda running: running.getaddrinfo("localhost", 1),
        lambda running: running.create_connection(asyncio.Protocol, "127.0.0.1", 1),
        lambda running: running.create_server(asyncio.Protocol, "127.0.0.1", 0),
        lambda running: running.add_signal_handler(15, int),
    ],
)
def test_loop_refuses_the_real_world(use: Any) -> None:
    """One real socket or thread, and the seed repeats nothing any more."""

    async def main() -> None:
        with pytest.raises(SimulationError, match="do not exist in a simulation"):
            use(loop.current())

    run(main(), 1)


def test_current_refuses_a_real_loop() -> None:
    """Simulation parts used outside of one would silently do nothing."""

    async def main() -> None:
        with pytest.raises(SimulationError, match="simulations only"):
            loop.current()

    asyncio.run(main())


# --- freezing ------------------------------------------------------------------------------------


async def ticking(log: list[float]) -> None:
    while True:
        await asyncio.sleep(1)
        log.append(loop.current().time())


def test_frozen_host_does_nothing_while_time_passes() -> None:
    """SIGSTOP: the process stands, the clock does not."""

    async def main() -> tuple[list[float], list[float]]:
        running = loop.current()
        stopped: list[float] = []
        other: list[float] = []
        running.start("a", ticking(stopped))
        running.start("b", ticking(other))
        await asyncio.sleep(2.5)
        running.freeze("a")
        assert running.is_frozen("a")
        await asyncio.sleep(5)
        assert stopped == [1, 2]
        running.thaw("a")
        await asyncio.sleep(1.7)
        running.kill("a")
        running.kill("b")
        return stopped, other

    stopped, other = run(main(), 1)
    assert stopped == [1, 2, 7.5, 8.5]
    assert other == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_frozen_host_stands_between_any_two_awaits() -> None:
    """The dangerous pause is the one between a check and the write that follows it."""

    async def steps(log: list[int]) -> None:
        for number in range(100):
            log.append(number)
            await asyncio.sleep(0)

    async def main(stop_after: int) -> int:
        running = loop.current()
        log: list[int] = []
        task = running.start("a", steps(log))
        while len(log) < stop_after:
            await asyncio.sleep(0)
        running.freeze("a")
        at = len(log)
        await asyncio.sleep(60)
        assert len(log) == at
        running.thaw("a")
        await task
        assert log == list(range(100))
        return at

    assert len({run(main(after), after) for after in range(1, 60)}) > 30


def test_thawed_host_sees_arrivals_before_timers_and_timers_in_any_order() -> None:
    """A lease check that trusts the order of timers instead of the clock fails here."""

    async def main() -> list[str]:
        running = loop.current()
        log: list[str] = []
        at = hosts.context("a")
        for number in range(5):
            running.call_later(1 + number, log.append, f"timer {number}", context=at)
        running.freeze("a")
        running.freeze("a")
        await asyncio.sleep(10)
        running.call_soon(log.append, "arrival", context=at)
        await asyncio.sleep(1)
        running.thaw("a")
        running.thaw("a")
        await asyncio.sleep(1)
        return log

    orders = [run(main(), seed) for seed in range(10)]
    assert {order[0] for order in orders} == {"arrival"}
    assert {len(order) for order in orders} == {6}
    assert len({tuple(order) for order in orders}) > 5


def test_future_resolved_while_its_waiter_is_frozen_wakes_it_after_the_thaw() -> None:
    """What the world hands to a stopped process waits for it."""

    async def main() -> float:
        running = loop.current()
        given: asyncio.Future[None] = running.create_future()

        async def wait() -> float:
            await given
            return running.time()

        task = running.start("a", wait())
        await asyncio.sleep(1)
        running.freeze("a")
        given.set_result(None)
        await asyncio.sleep(9)
        running.thaw("a")
        return await task

    assert run(main(), 1) == 10


def test_run_that_waits_for_a_frozen_host_is_a_deadlock() -> None:
    """The message has to say who is frozen, since that is why."""

    async def main() -> None:
        running = loop.current()
        task = running.start("a", asyncio.sleep(1))
        running.freeze("a")
        await task

    with pytest.raises(Stuck, match="1 hosts are frozen: a"):
        run(main(), 1)


# --- killing -------------------------------------------------------------------------------------


def test_killed_host_runs_nothing_any_more_not_even_finally() -> None:
    """kill -9 says no goodbyes: a `finally` that released a lock would hide the worst bugs."""
    log: list[str] = []

    async def work() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(100))
                await asyncio.sleep(1)
                log.append("alive")
                await asyncio.sleep(1)
                log.append("never")
        finally:
            log.append("finally")

    async def main() -> list[str]:
        running = loop.current()
        killed: list[str] = []
        running.on_kill(killed.append)
        running.start("a", work())
        await asyncio.sleep(1.5)
        running.kill("a")
        running.kill("a")
        assert running.is_dead("a")
        gc.collect()
        await asyncio.sleep(10)
        gc.collect()
        assert killed == ["a"]
        return list(log)

    assert run(main(), 1) == ["alive"]


def test_killed_host_may_have_been_frozen() -> None:
    """Stopped, then killed: what was parked is dropped with the rest."""

    async def main() -> list[float]:
        running = loop.current()
        log: list[float] = []
        running.start("a", ticking(log))
        running.freeze("a")
        await asyncio.sleep(3)
        running.kill("a")
        running.thaw("a")
        running.freeze("a")
        assert not running.is_frozen("a")
        await asyncio.sleep(3)
        return log

    assert run(main(), 1) == []


def test_host_that_kills_itself_runs_to_its_next_await() -> None:
    """As with a signal, and a crash point in the middle of a step is one await away."""

    async def main() -> list[str]:
        running = loop.current()
        log: list[str] = []

        async def suicide() -> None:
            running.kill("a")
            log.append("last words")
            running.create_task(asyncio.sleep(0))
            running.call_soon(log.append, "never")
            await asyncio.sleep(0)
            log.append("never")

        running.start("a", suicide())
        await asyncio.sleep(5)
        return log

    assert run(main(), 1) == ["last words"]


def test_killed_host_never_starts_again_but_its_machine_does() -> None:
    """A new process has no memory of the old one, and another name."""

    async def main() -> str:
        running = loop.current()
        running.kill("a")
        with pytest.raises(SimulationError, match="a#2"):
            running.start("a", asyncio.sleep(0))
        return await running.start("a#2", asyncio.sleep(1, "born again"))

    assert run(main(), 1) == "born again"
    assert hosts.machine("a#2") == hosts.machine("a") == "a"


def test_killed_host_holds_back_nobodys_time() -> None:
    """A dead process's timer at the end of the day must not keep a deadlock from being seen."""

    async def main() -> None:
        running = loop.current()
        running.start("a", asyncio.sleep(86400))
        await asyncio.sleep(1)
        running.kill("a")
        await asyncio.Event().wait()

    with pytest.raises(Stuck, match=r"at 1\.000 s"):
        run(main(), 1)


def test_world_can_neither_be_frozen_nor_killed() -> None:
    """An empty name is a mistake in the test, which would stop the test itself."""

    async def main() -> None:
        with pytest.raises(SimulationError):
            loop.current().freeze("")
        with pytest.raises(SimulationError):
            loop.current().kill("")

    run(main(), 1)


def test_generator_of_a_killed_host_is_not_closed() -> None:
    """An async generator's `finally` is a goodbye too, and asyncio sends it from a finalizer."""
    log: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            log.append("closed by " + hosts.current())

    async def look(keep: list[object]) -> None:
        stream = numbers()
        async for _ in stream:
            break
        keep.append(stream)

    async def main() -> list[str]:
        running = loop.current()
        keep: list[object] = []
        await running.start("a", look(keep))
        keep.clear()
        await asyncio.sleep(1)
        await running.start("b", look(keep))
        running.kill("b")
        keep.clear()
        await asyncio.sleep(1)
        return list(log)

    assert run(main(), 1) == ["closed by a"]


# --- the end of a run ----------------------------------------------------------------------------


def test_run_reports_tasks_that_were_left_over() -> None:
    """A leaked task is a bug in a silo's stop, and would run on in production."""

    async def main() -> None:
        loop.current().start("a", asyncio.sleep(50), name="forgotten")
        await asyncio.sleep(1)

    with pytest.raises(LeakedTasks, match="forgotten"):
        run(main(), 1)
    run(main(), 1, leaks=True)


def test_run_reports_an_error_that_nobody_awaited() -> None:
    """Otherwise it would be a line on standard error, and the test green."""

    async def fail() -> None:
        raise ValueError("unseen")

    async def main() -> object:
        task = asyncio.create_task(fail())
        await asyncio.sleep(1)
        return weakref.ref(task)

    with pytest.raises(SimulationError, match="nobody awaited") as caught:
        run(main(), 1)
    assert isinstance(caught.value.__cause__, ValueError)


def test_run_ends_with_the_first_error_of_a_callback() -> None:
    """Going on after it would bury the cause under its consequences."""

    async def main() -> None:
        loop.current().call_later(1, int, "x")
        await asyncio.sleep(100)

    with pytest.raises(SimulationError, match="Exception in callback") as caught:
        run(main(), 1)
    assert isinstance(caught.value.__cause__, ValueError)


def test_run_ignores_the_errors_of_killed_hosts() -> None:
    """A dead process has no log; its error was never seen."""

    async def fail() -> None:
        raise ValueError("unseen")

    async def main() -> None:
        running = loop.current()
        running.start("a", fail())
        await asyncio.sleep(1)
        running.kill("a")

    run(main(), 1)


def test_run_closes_stubborn_coroutines_without_a_word() -> None:
    """Whatever a dead process's `finally` awaits must not warn in the next test."""

    started: list[asyncio.Task[None]] = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            for _ in range(3):
                try:
                    await asyncio.sleep(1)
                finally:
                    started.append(asyncio.create_task(asyncio.sleep(0)))
                    await asyncio.sleep(0)

    async def furious() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            raise ValueError

    async def immortal() -> None:
        while True:
            try:
                await asyncio.sleep(100)
            except GeneratorExit:
                continue

    async def main() -> None:
        running = loop.current()
        running.start("a", stubborn())
        running.start("a", immortal())
        running.start("a", furious())
        await asyncio.sleep(1)
        running.start("a", stubborn())
        running.kill("a")

    run(main(), 1)
    gc.collect()


def test_run_restores_what_it_changed() -> None:
    """A simulation inside a test suite must not slow down or break the tests after it."""

    async def main() -> bool:
        return gc.isenabled()

    assert run(main(), 1) is False
    assert gc.isenabled()
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    gc.disable()
    try:
        run(main(), 1)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_run_passes_on_what_main_raises_with_the_seed() -> None:
    """The seed is what a person needs to see first."""

    async def main() -> None:
        await asyncio.sleep(2)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        run(main(), 99)
    assert "seed 99, 2.000000 s" in caught.value.__notes__[0]


def test_loop_forgets_ended_tasks_and_cancelled_timers() -> None:
    """A long run makes millions of both."""

    async def main() -> tuple[int, int]:
        running = loop.current()

        async def short() -> None:
            async with asyncio.timeout(1000):
                await asyncio.sleep(0.001)

        for _ in range(5000):
            await asyncio.create_task(short())
        return len(running._tasks), len(running._scheduled)

    tasks, timers = run(main(), 1)
    assert tasks < 1100
    assert timers < 300


def test_randomness_of_one_purpose_does_not_depend_on_another() -> None:
    """A new fault drawn somewhere must not change every latency everywhere."""
    one, two = SimLoop(5), SimLoop(5)
    one.randomness("x").random()
    assert one.randomness("y").random() == two.randomness("y").random()
    assert one.randomness("y").random() != one.randomness("x").random()
    one.close()
    two.close()
