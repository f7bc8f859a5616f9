"""A cluster for code without async: scripts, threads, notebooks with a loop of their own."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest

import durum
import durum.sync
from durum import Actor, Gap, Publishes, errors, read_only
from durum.silo.silo import Silo
from tests.support import quarters

ROOT = Path(__file__).parents[2]


class Account(Actor):
    balance: Decimal = Decimal(0)

    async def deposit(self, amount: Decimal) -> Decimal:
        if amount <= 0:
            raise ValueError("amount must be positive")
        self.balance += amount
        return self.balance

    @read_only
    async def get(self) -> Decimal:
        return self.balance

    async def count(self, to: int) -> AsyncIterator[int]:
        for n in range(to):
            yield n

    async def count_badly(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError("no more")

    async def deposit_slowly(self, amount: Decimal, mark: str) -> None:
        """Change the state, then stay until cancelled; files tell when."""
        self.balance += amount
        Path(f"{mark}-began").touch()
        try:
            await asyncio.Event().wait()
        finally:
            Path(f"{mark}-ended").touch()


class Board(Actor, Publishes[int | str]):
    async def say(self, what: int | str) -> None:
        self.publish(what)


@pytest.fixture(scope="module")
def silo() -> Iterator[Silo]:
    with quarters.serving([Account, Board]) as running:
        yield running


@pytest.fixture
def cluster(silo: Silo) -> Iterator[durum.sync.Cluster]:
    with durum.sync.connect(silo.address) as connected:
        yield connected


def wait_for(path: Path) -> None:
    until = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.005)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "durum.sync"]


def test_a_call_waits_for_its_result(cluster: durum.sync.Cluster) -> None:
    """A script reads from top to bottom: the next line needs this one's result."""
    alice = cluster.actor(Account, "waits")
    assert cluster.call(alice.deposit, Decimal(10)) == 10
    assert cluster.call(alice.deposit, amount=Decimal("2.5")) == Decimal("12.5")
    assert cluster.call(alice.get) == Decimal("12.5")
    assert len(cluster.silos) == 1


def test_a_method_s_exception_arrives_as_its_own_type(cluster: durum.sync.Cluster) -> None:
    """Code without async catches the same exceptions."""
    alice = cluster.actor(Account, "raises")
    with pytest.raises(ValueError, match="must be positive"):
        cluster.call(alice.deposit, Decimal(-1))
    assert cluster.call(alice.get) == 0


def test_a_message_is_accepted_and_takes_effect_later(cluster: durum.sync.Cluster) -> None:
    """Whoever sends it need not wait for the actor; under a key it is accepted once."""
    alice = cluster.actor(Account, "told")
    keyed = durum.options(alice, idempotency_key="once")
    for _ in range(3):
        cluster.tell(keyed.deposit, Decimal(5))
    cluster.tell(alice.deposit, Decimal(1))
    until = time.monotonic() + 20
    while cluster.call(alice.get) != 6:
        assert time.monotonic() < until
        time.sleep(0.01)
    other = durum.sync.connect(cluster.silos[0])
    with other, pytest.raises(errors.ArgumentError, match="another connection"):
        other.tell(alice.deposit, Decimal(1))


def test_options_go_onto_the_reference(cluster: durum.sync.Cluster) -> None:
    """A timeout must not be taken for one of the method's own arguments."""
    alice = cluster.actor(Account, "options")
    keyed = durum.options(alice, idempotency_key="once", timeout=5)
    assert cluster.call(keyed.deposit, Decimal(1)) == 1
    assert cluster.call(keyed.deposit, Decimal(1)) == 1


def test_a_call_ends_at_its_timeout_and_is_rolled_back(
    cluster: durum.sync.Cluster, tmp_path: Path
) -> None:
    """A script must not hang for ever, and what it gave up on must not be kept."""
    alice = cluster.actor(Account, "late")
    mark = str(tmp_path / "late")
    with pytest.raises(errors.CallTimeout):
        cluster.call(durum.options(alice, timeout=0.3).deposit_slowly, Decimal(1), mark)
    wait_for(Path(f"{mark}-ended"))
    assert cluster.call(alice.get) == 0


def test_gather_keeps_the_order_of_its_calls(cluster: durum.sync.Cluster) -> None:
    """Results are matched to calls by their place."""
    found = cluster.gather(
        [cluster.actor(Account, f"g{n}").deposit(Decimal(n + 1)) for n in range(600)]
    )
    assert found == [Decimal(n + 1) for n in range(600)]
    assert cluster.gather([]) == []


def test_gather_cancels_the_rest_at_the_first_error(
    cluster: durum.sync.Cluster, tmp_path: Path
) -> None:
    """Otherwise calls would go on behind the back of whoever handles the error."""
    mark = str(tmp_path / "rest")
    alice, never = cluster.actor(Account, "gather-1"), cluster.actor(Account, "gather-2")
    waiting = alice.deposit_slowly(Decimal(1), mark)

    async def fail_when_running() -> None:
        while not Path(f"{mark}-began").exists():
            await asyncio.sleep(0.005)
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        cluster.gather(
            [waiting, fail_when_running(), never.deposit_slowly(Decimal(1), "no")], in_flight=2
        )
    wait_for(Path(f"{mark}-ended"))
    assert cluster.call(alice.get) == 0
    assert cluster.call(never.get) == 0


def test_gather_can_return_exceptions(cluster: durum.sync.Cluster) -> None:
    """Whoever sends a thousand calls wants to know which of them failed."""
    alice = cluster.actor(Account, "returns")
    calls = [alice.deposit(Decimal(1)), alice.deposit(Decimal(-1)), alice.deposit(Decimal(1))]
    first, second, third = cluster.gather(calls, in_flight=1, return_exceptions=True)
    assert [first, third] == [Decimal(1), Decimal(2)]
    assert isinstance(second, ValueError)


def test_map_draws_items_only_as_it_needs_them(cluster: durum.sync.Cluster) -> None:
    """There may be more items than fit into memory."""
    drawn = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            drawn.append(number)
            yield number

    found = cluster.map(
        lambda n: cluster.actor(Account, f"m{n}").deposit(Decimal(n + 1)), numbers(), in_flight=8
    )
    assert [next(found) for _ in range(3)] == [1, 2, 3]
    assert len(drawn) <= 12
    found.close()  # type: ignore[attr-defined]


def test_many_threads_share_one_connection(cluster: durum.sync.Cluster) -> None:
    """Web frameworks without async call from a pool of threads."""
    alice = cluster.actor(Account, "threads")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: cluster.call(alice.deposit, Decimal(1)), range(200)))
    assert cluster.call(alice.get) == 200


async def test_it_works_where_a_loop_is_running(silo: Silo) -> None:
    """A notebook's cells run inside a loop; asyncio.run fails there, and this must not."""
    with durum.sync.connect(silo.address) as cluster:
        alice = cluster.actor(Account, "notebook")
        assert cluster.call(alice.deposit, Decimal(1)) == 1
        assert await alice.deposit(Decimal(1)) == 2, "cells may await, too"
        many = await asyncio.gather(*(alice.deposit(Decimal(1)) for _ in range(5)))
        assert sorted(many) == [3, 4, 5, 6, 7]


async def test_streams_are_read_in_any_loop(silo: Silo) -> None:
    """A cell of a notebook may iterate, and break off, far from the connection's own loop."""
    with durum.sync.connect(silo.address) as cluster:
        alice = cluster.actor(Account, "streams")
        assert [n async for n in alice.count(100)] == list(range(100))
        async for n in alice.count(10_000):
            if n == 50:
                break
        until = time.monotonic() + 20
        while len(silo.life._dispatcher.streams):
            assert time.monotonic() < until, "the stream was never closed"
            await asyncio.sleep(0.005)
        with durum.baggage.scope(tenant="acme"):
            assert cluster.call(alice.get) == 0


async def test_cancelling_an_await_in_another_loop_cancels_the_call(
    silo: Silo, tmp_path: Path
) -> None:
    """Interrupting a cell that awaits must stop the turn, as it does everywhere else."""
    with durum.sync.connect(silo.address) as cluster:
        alice, mark = cluster.actor(Account, "cell"), str(tmp_path / "cell")
        cell = asyncio.get_running_loop().create_task(alice.deposit_slowly(Decimal(1), mark))
        await asyncio.to_thread(wait_for, Path(f"{mark}-began"))
        cell.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cell
        await asyncio.to_thread(wait_for, Path(f"{mark}-ended"))
        assert cluster.call(alice.get) == 0


def test_ctrl_c_cancels_the_call(silo: Silo, tmp_path: Path) -> None:
    """Whoever presses Ctrl-C means the call, not only the waiting."""
    mark = tmp_path / "ctrl-c"
    script = textwrap.dedent(f"""
        from decimal import Decimal
        import durum.sync
        from tests.ways.test_sync import Account
        with durum.sync.connect({silo.address!r}) as cluster:
            alice = cluster.actor(Account, "ctrl-c")
            try:
                cluster.call(alice.deposit_slowly, Decimal(1), {str(mark)!r})
            except KeyboardInterrupt:
                print(cluster.call(alice.deposit, Decimal(5)))
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        wait_for(Path(f"{mark}-began"))
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, out) == (0, "5\n")
    wait_for(Path(f"{mark}-ended"))


def test_a_script_that_forgets_to_close_ends(silo: Silo) -> None:
    """A thread in the background must not keep a script alive, nor make noise at its end."""
    script = textwrap.dedent(f"""
        from decimal import Decimal
        import durum
        from tests.ways.test_sync import Account
        cluster = durum.sync.connect({silo.address!r})
        print(cluster.call(cluster.actor(Account, "forgets").deposit, Decimal(1)))
    """)
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_what_nobody_refers_to_is_closed(silo: Silo) -> None:
    """A cell that connects is run again and again."""
    before = len(threads())
    alice = durum.sync.connect(silo.address).actor(Account, "dropped")
    gc.collect()
    assert len(threads()) == before + 1, "a reference needs it"
    del alice
    gc.collect()
    assert len(threads()) == before


def test_a_forked_process_is_told_to_connect_anew(cluster: durum.sync.Cluster) -> None:
    """multiprocessing forks: the child has the object and not its thread, and would wait for ever."""
    alice = cluster.actor(Account, "forked")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            cluster.call(alice.get)
        except BaseException as exc:
            os.write(write, f"{type(exc).__name__}: {exc}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    said = os.read(read, 4096).decode()
    os.close(read)
    os.close(write)
    assert said.startswith("Rejected: this process was forked")
    assert cluster.call(alice.get) == 0


def test_waiting_on_the_connection_s_own_thread_is_refused(cluster: durum.sync.Cluster) -> None:
    """It would stop the loop that has to make the call: a deadlock without a word."""
    alice = cluster.actor(Account, "own")

    async def inside() -> None:
        assert await alice.deposit(Decimal(1)) == 1
        cluster.call(alice.deposit, Decimal(1))

    with pytest.raises(errors.Rejected, match="Await the method instead"):
        cluster.call(inside)
    assert cluster.call(alice.get) == 1


def test_mistakes_are_explained(cluster: durum.sync.Cluster, silo: Silo) -> None:
    """The three mistakes that everybody makes once."""
    alice = cluster.actor(Account, "mistakes")
    with pytest.raises(errors.ArgumentError, match="Give the method and its arguments apart"):
        cluster.call(alice.deposit(Decimal(1)))  # type: ignore[arg-type]
    with pytest.raises(errors.ArgumentError, match="expected an actor's method"):
        cluster.call(print, 1)  # type: ignore[arg-type]
    with pytest.raises(errors.ArgumentError, match=r"expected calls such as alice\.deposit"):
        cluster.gather([alice.deposit(Decimal(1)), alice.deposit])  # type: ignore[arg-type]
    with (
        durum.sync.connect(silo.address) as other,
        pytest.raises(errors.ArgumentError, match="belongs to another connection"),
    ):
        other.call(alice.deposit, Decimal(1))
    assert cluster.call(alice.get) == 0


def test_a_closed_connection_says_so(silo: Silo) -> None:
    """The error must not be asyncio's."""
    cluster = durum.sync.connect(silo.address)
    alice = cluster.actor(Account, "closed")
    cluster.close()
    cluster.close()
    with pytest.raises(errors.ShuttingDown, match="did not run"):
        cluster.call(alice.get)
    with pytest.raises(errors.ShuttingDown):
        cluster.gather([alice.get()])


def test_closing_ends_calls_of_other_threads(silo: Silo, tmp_path: Path) -> None:
    """A thread that waits for a call must not wait for ever once the connection is gone."""
    cluster = durum.sync.connect(silo.address)
    alice, mark = cluster.actor(Account, "closes"), str(tmp_path / "closes")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cluster.call, alice.deposit_slowly, Decimal(1), mark)
        wait_for(Path(f"{mark}-began"))
        cluster.close()
        with pytest.raises(errors.CallError):
            waiting.result(10)


def test_connecting_to_nobody_ends_in_its_error() -> None:
    """A wrong address has to show at once, and leave no thread."""
    before = len(threads())
    with pytest.raises(errors.NoSilo, match=r"127\.0\.0\.1:1"):
        durum.sync.connect("127.0.0.1:1", connect_timeout_s=0.2)
    with pytest.raises(errors.ConfigError):
        durum.sync.connect("nonsense")
    assert len(threads()) == before


def test_events_come_in_a_loop_without_async(cluster: durum.sync.Cluster) -> None:
    """A script that follows an actor needs no loop of its own."""
    board = cluster.actor(Board, "a")
    with cluster.watch(board) as events:
        for what in (1, "two", 3):
            cluster.call(board.say, what)
        assert [next(events), events.get(), events.get(timeout=5)] == [1, "two", 3]
        with pytest.raises(TimeoutError):
            events.get(timeout=0.01)
        cluster.call(board.say, 4)
        for event in events:
            assert not isinstance(event, Gap)
            assert event == 4
            break
    with pytest.raises(StopIteration):
        next(events)
    assert list(events) == []
    with pytest.raises(errors.ArgumentError, match="publishes nothing"):
        cluster.watch(cluster.actor(Account, "a"))  # type: ignore[arg-type]


def test_results_come_in_a_loop_without_async(cluster: durum.sync.Cluster) -> None:
    """A script that reads a long answer needs no loop of its own, and no room for all of it."""
    alice = cluster.actor(Account, "stream")
    assert list(cluster.stream(alice.count, 1000)) == list(range(1000))
    assert list(cluster.stream(alice.count, to=0)) == []
    items = cluster.stream(alice.count, 3)
    assert [next(items), next(items), next(items)] == [0, 1, 2]
    with pytest.raises(StopIteration):
        next(items)
    with cluster.stream(alice.count, 10_000) as many:
        assert next(many) == 0
    assert list(many) == []


async def test_leaving_a_loop_over_results_ends_the_method(silo: Silo) -> None:
    """A script that has found what it looked for must not hold a stream open at the silo."""

    def read() -> None:
        with durum.sync.connect(silo.address) as cluster:
            alice = cluster.actor(Account, "stream")
            for n in cluster.stream(alice.count, 10_000):
                if n == 50:
                    break
            kept = cluster.stream(alice.count, 10_000)
            assert next(kept) == 0
            kept.close()
            kept.close()
            left.set()
            done.wait(20)

    left, done = threading.Event(), threading.Event()
    reading = asyncio.create_task(asyncio.to_thread(read))
    until = time.monotonic() + 20
    while not left.is_set() or len(silo.life._dispatcher.streams):
        assert time.monotonic() < until, "the stream was never closed"
        assert not reading.done(), reading
        await asyncio.sleep(0.005)
    done.set()
    await reading


def test_errors_of_a_stream_are_raised_where_it_is_read(cluster: durum.sync.Cluster) -> None:
    """As a call's are; and what is no stream is refused with nothing sent."""
    alice = cluster.actor(Account, "stream")
    items = cluster.stream(alice.count_badly)
    assert next(items) == 1
    with pytest.raises(ValueError, match="no more"):
        next(items)
    assert list(items) == []
    for wrong in (alice.get, print, alice.count(3)):
        with pytest.raises(errors.ArgumentError, match=r"stream\(\)"):
            cluster.stream(wrong)  # type: ignore[arg-type]
    with pytest.raises(errors.ArgumentError):
        next(cluster.stream(alice.count, "many"))  # type: ignore[arg-type]
