"""The demo is what everybody runs first: it is right, says when something is not, and leaves nothing."""

from __future__ import annotations

import signal
from decimal import Decimal
from pathlib import Path

import pytest

from durum.cli import demo, demo_report, exits
from durum.demo import play, purchases
from durum.demo.purchases import Purchase, Sums
from tests.support import commands


@pytest.mark.timeout(120)
def test_demo_loses_and_doubles_nothing_when_a_silo_is_killed(tmp_path: Path) -> None:
    """The main job, on the first lines of the real file."""
    done = commands.durum(tmp_path, "demo", "--lines", "900", "--json")
    assert done.code == exits.CLEAN, done.err
    result = done.json
    assert result["right"] is True
    assert result["purchases"] == 900
    assert result["failover"]["killed"]
    assert result["days_closed"] == result["days"]
    expected = sum((p.dollars for p in purchases.read(purchases.SAMPLE, 900)), Decimal(0))
    for way in ("file", "customers", "days", "months"):
        assert result["totals"][way]["dollars"] == str(expected)


@pytest.mark.timeout(120)
def test_demo_on_a_valkey_that_it_starts(tmp_path: Path) -> None:
    """The same code on the store that production uses."""
    done = commands.durum(tmp_path, "demo", "--lines", "900", "--store", "redis", "--json")
    assert done.code == exits.CLEAN, done.err
    assert done.json["right"] is True


def test_ctrl_c_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    """A newcomer presses it; three orphans and a full /tmp would be the last impression."""
    env = {"TMPDIR": str(tmp_path)}
    with commands.talking(tmp_path, "demo", "--json", env=env) as running:
        commands.until(lambda: len(_silos(tmp_path)) == 3)
        pids = _silos(tmp_path)
        running.send_signal(signal.SIGINT)
        assert running.wait(commands.PATIENCE_S) == exits.INTERRUPTED
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert list(tmp_path.glob("durum-demo-*")) == []


def test_silos_stop_when_the_demo_is_killed(tmp_path: Path) -> None:
    """kill -9 gives it no chance to clean up; processes that nobody knows of would stay for ever."""
    env = {"TMPDIR": str(tmp_path)}
    with commands.talking(tmp_path, "demo", "--json", env=env) as running:
        commands.until(lambda: len(_silos(tmp_path)) == 3)
        running.kill()
    commands.until(lambda: not _silos(tmp_path))


def _silos(home: Path) -> set[str]:
    """Processes that name our directory among their arguments."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"silo" in words and any(str(home).encode() in word for word in words):
            found.add(process.name)
    return found


def test_lost_and_doubled_purchases_are_found() -> None:
    """A comparison that cannot fail would prove nothing."""
    expected = purchases.sum_up(purchases.read(purchases.SAMPLE, 50))
    told = purchases.sum_up(purchases.read(purchases.SAMPLE, 50))
    assert play.compare(expected, told).right
    first, second = list(told.customers)[:2]
    told.customers[first].purchases -= 1
    told.customers[second].purchases += 2
    told.months["1997-01"].dollars += Decimal("0.01")
    verdict = play.compare(expected, told)
    assert (verdict.right, verdict.lost, verdict.doubled, len(verdict.wrong)) == (False, 1, 2, 3)


def test_wrong_totals_are_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """CI believes the exit code."""

    async def cheat(plan: object, screen: object) -> object:
        del plan, screen
        expected = purchases.sum_up(purchases.read(purchases.SAMPLE, 5))
        told = purchases.sum_up(purchases.read(purchases.SAMPLE, 4))
        return demo_report.Result(
            purchases=5,
            turns=15,
            seconds=1.0,
            days_closed=len(expected.days),
            silos=3,
            store="",
            durability="",
            failover=None,
            expected=expected,
            told=told,
            verdict=play.compare(expected, told),
        )

    monkeypatch.setattr(demo, "_demo", cheat)
    assert demo.command.main(["--lines", "5", "--json"], standalone_mode=False) == exits.FAILED


def test_the_full_set_s_columns_are_understood(tmp_path: Path) -> None:
    """It has no number within the sample."""
    full = tmp_path / "CDNOW_master.txt"
    full.write_text(" 00001 19970101  1   11.77\n 00002 19970112  5   77.00\n")
    (one, two) = purchases.read(full)
    assert (one.customer, one.cds, one.dollars) == ("00001", 1, Decimal("11.77"))
    assert two.month == "1997-01"


@pytest.mark.parametrize(
    "line", ["x", "00001 19970101 1 money", "1 2 3 4 5 6", "00001 19971301 1 1"]
)
def test_a_line_that_is_no_purchase_is_named(tmp_path: Path, line: str) -> None:
    """The person with the wrong file learns which line of it, and what was expected."""
    bad = tmp_path / "bad.txt"
    bad.write_text(f"00001 19970101 1 1.00\n{line}\n")
    with pytest.raises(purchases.BadLine, match=r"line 2: .*is not a purchase"):
        purchases.read(bad)
    done = commands.durum(tmp_path, "demo", "--data", str(bad))
    assert (done.code, "Traceback" in done.err) == (exits.CONFIG, False)


def test_sums_add_up_to_the_cent() -> None:
    """Money is Decimal: a float would be right only by luck."""
    sums = Sums()
    day = purchases.read(purchases.SAMPLE, 1)[0].day
    for number in range(10):
        sums.add(Purchase(f"line-{number}", "1", day, 1, Decimal("0.10")))
    assert sums == Sums(10, 10, Decimal("1.00"))
