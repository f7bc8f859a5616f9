"""What a checkup finds odd, judged on values, and that it changes nothing."""

from __future__ import annotations

import pytest

from durum.clock import SystemClock
from durum.ids import SiloId, SystemEntropy, Token
from durum.store import checkup
from durum.store.checkup import Verdict
from durum.store.protocol import NEVER_OWNED, Genesis, Owner, Store, TableRead
from durum.views import SiloRow, Status, Suspicion, View
from tests.support.services import ALICE, OTHER, SILO, Service, commit, row

NOW = 1_000_000.0


def read(*rows: SiloRow, beats: int = 1) -> TableRead:
    """A reading of the table."""
    return TableRead(
        view=View(version=3, rows=rows),
        heartbeats={one.silo: beats for one in rows},
        time=NOW,
        identity="",
    )


def active(silo: SiloId = SILO, status: Status = Status.ACTIVE, **fields: object) -> SiloRow:
    """A silo that has been so for ten seconds."""
    return row(silo, status, **{"since": NOW - 10, **fields})


def test_silos_that_renew_are_fine() -> None:
    """Nothing to say is said in one line."""
    rows = active(), active(OTHER, Status.JOINING), active(SiloId("a:1@1"), Status.DEAD)
    (found,) = checkup.suspicious_rows(read(*rows), read(*rows, beats=2), 2.5)
    assert (found.verdict, found.text) == (Verdict.FINE, "2 silos live, view 3.")


@pytest.mark.parametrize(
    ("rows", "beats", "words"),
    [
        ([active()], 1, "has not renewed its lease"),
        ([active(status=Status.JOINING, since=NOW - 100)], 2, "has been joining for 100 s"),
        ([active(status=Status.LEAVING, since=NOW - 100)], 2, "has been leaving for 100 s"),
        ([active(status=Status.DEAD, since=NOW - 90_000)], 2, "dead for 25 h"),
        ([active(suspicions=(Suspicion(by=OTHER, at=NOW),))], 2, f"suspected by {OTHER}"),
        ([active(since=NOW + 60)], 2, "clock was set back"),
        ([active(), active(SiloId("127.0.0.1:7600@2"))], 2, "the newest is 127.0.0.1:7600@2"),
        (
            [active(kinds={"A": 1}), active(OTHER, kinds={"A": 2})],
            2,
            "A is hosted in versions 1, 2",
        ),
    ],
)
def test_odd_row_is_named(rows: list[SiloRow], beats: int, words: str) -> None:
    """Each is something that a person would look at."""
    (found,) = checkup.suspicious_rows(read(*rows), read(*rows, beats=beats), 2.5)
    assert found.verdict is Verdict.WARNING
    assert words in found.text


def owner(silo: SiloId | None, partition: int = 0) -> Owner:
    """An owner record."""
    return Owner(partition=partition, silo=silo, epoch=1, token=Token(b"x" * 16), commits=0)


@pytest.mark.parametrize(
    ("owners", "rows", "verdict", "words"),
    [
        ([owner(SILO), owner(SILO)], [active()], Verdict.FINE, "2 of 2 held by 1 silos"),
        ([owner(None)], [], Verdict.FINE, "0 of 1"),
        ([owner(OTHER)], [], Verdict.FINE, "1 of 1"),
        (
            [owner(SILO), owner(None)],
            [active()],
            Verdict.WARNING,
            "1 of 2 partitions are held by nobody",
        ),
        ([owner(OTHER)], [active()], Verdict.WARNING, "is not in the table and holds 1"),
        (
            [owner(OTHER)],
            [active(), active(OTHER, Status.DEAD)],
            Verdict.WARNING,
            "is dead and holds 1",
        ),
    ],
)
def test_partitions_without_a_living_owner_are_named(
    owners: list[Owner], rows: list[SiloRow], verdict: Verdict, words: str
) -> None:
    """Nobody answers for them, unless it is a moment after a start or a death."""
    (found,) = checkup.suspicious_owners(owners, read(*rows))
    assert found.verdict is verdict
    assert words in found.text


@pytest.mark.parametrize(
    ("seconds", "give_or_take", "verdict"),
    [
        (0.3, 0.0, Verdict.FINE),
        (2.5, 0.0, Verdict.WARNING),
        (-3600.0, 0.1, Verdict.WARNING),
        (2.5, 1.0, Verdict.FINE),
    ],
)
def test_clock_that_is_off_is_told_with_its_direction(
    seconds: float, give_or_take: float, verdict: Verdict
) -> None:
    """What the way there and back took cannot be told from a difference."""
    found = checkup.skew(seconds, give_or_take)
    assert found.verdict is verdict
    if verdict is Verdict.WARNING:
        assert ("ahead" if seconds > 0 else "behind") in found.text


async def test_checkup_measures_and_changes_nothing(service: Service) -> None:
    """It runs beside production."""
    token = await service.hold()
    await service.store.commit(commit(token))
    before = await service.store.owners(service.mark)
    cluster = service.genesis.cluster
    found = await checkup.examine(service.store, cluster, SystemClock(), SystemEntropy())
    assert [one.what for one in found.latencies] == ["read", "fenced write"]
    assert found.facts or found.level == "D0"
    assert await service.store.owners(service.mark) == before
    assert list(await service.store.scan(0, "", "", 9)) == [ALICE]
    expected = Verdict.UNSAFE if found.level == "D0" else Verdict.FINE
    assert found.worst in (expected, Verdict.WARNING)
    assert NEVER_OWNED in {one.token for one in before}


@pytest.mark.parametrize(
    ("beats", "looks", "words"),
    [([1, 2], 1, "live, view"), ([1, 1, 2], 2, "live, view"), ([1, 1, 1], 2, "for 5 s")],
)
async def test_silo_that_renews_late_is_given_a_second_look(
    beats: list[int], looks: int, words: str
) -> None:
    """On a busy machine a renewal takes longer; a warning for that teaches people to ignore warnings."""
    clock, readings = Sleepless(), iter(beats)

    async def read_table(mark: str) -> TableRead:
        return read(active(), beats=next(readings))

    service = checkup._Service(
        Replaced(None, read_table=read_table),  # type: ignore[arg-type]
        Genesis(mark="m", cluster="c", partitions=1, ring=1),
        clock,
        SystemEntropy(),
    )
    after, waited_s = await service._renewed(await read_table("m"), clock.boottime())
    (found, *_) = checkup.suspicious_rows(read(active(), beats=1), after, waited_s)
    assert (len(clock.slept), words in found.text) == (looks, True)


@pytest.mark.parametrize(("slow", "verdict"), [(10, Verdict.FINE), (1000, Verdict.WARNING)])
async def test_operation_is_slow_only_if_it_is_so_again(slow: int, verdict: Verdict) -> None:
    """A moment in which this process did not run says nothing about the store."""
    clock = Sleepless()

    async def operation() -> None:
        nonlocal slow
        slow -= 1
        clock.now += 0.2 if slow >= 0 else 0.001

    service = checkup._Service(None, None, clock, SystemEntropy())  # type: ignore[arg-type]
    assert checkup._speed(await service._measure("read", operation)).verdict is verdict


class Sleepless(SystemClock):
    """Time passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def boottime(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Replaced:
    """An object with some of its methods replaced."""

    def __init__(self, whole: object, **parts: object) -> None:
        self._whole = whole
        self.__dict__.update(parts)

    def __getattr__(self, name: str) -> object:
        return getattr(self._whole, name)


async def test_checkup_of_an_empty_store_says_how_to_go_on(store: Store) -> None:
    """Nothing to measure is no reason to fail."""
    found = await checkup.examine(store, "shop", SystemClock(), SystemEntropy())
    (missing,) = [one for one in found.findings if one.topic == "service"]
    assert "durum init" in missing.text
    assert found.latencies == ()
