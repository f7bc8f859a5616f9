"""The pytest plugin, in projects of its users: each test here runs pytest on a small one."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

HEAD = """
import asyncio
from decimal import Decimal
import pytest
from durum import Actor
from durum.testing import CALM, TestCluster

class Account(Actor):
    balance: Decimal = Decimal(0)

    async def deposit(self, amount: Decimal) -> Decimal:
        self.balance += amount
        return self.balance

"""


@dataclass(frozen=True)
class Run:
    """How a run of pytest ended."""

    code: int
    out: str

    def count(self, outcome: str) -> int:
        found = re.search(rf"(\d+) {outcome}", self.out.splitlines()[-1])
        return int(found[1]) if found else 0


@dataclass(frozen=True)
class Project:
    """A user's project.

    Args:
        home: its directory.
    """

    home: Path

    def run(self, text: str, *options: str, ini: str = "") -> Run:
        """Run pytest on a file of tests."""
        (self.home / "test_it.py").write_text(HEAD + textwrap.dedent(text))
        (self.home / "pytest.ini").write_text(
            f"[pytest]\nfilterwarnings = error\naddopts = --strict-markers\n{ini}\n"
        )
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *options],
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Run(done.returncode, done.stdout + done.stderr)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


WITHOUT_ASYNCIO = ("-p", "no:asyncio", "-p", "no:anyio")
LOOP = "asyncio_default_fixture_loop_scope = function\n"
AUTO = LOOP + "asyncio_mode = auto"

TESTS = """
@pytest.mark.durum(virtual=True)
async def test_virtual(durum_cluster):
    async with durum_cluster([Account], config=CALM) as cluster:
        alice = cluster.actor(Account, "alice")
        assert await alice.deposit(Decimal(1)) == 1
        await cluster.skip(hours=3)
        assert asyncio.get_running_loop().time() > 3 * 3600
        await cluster.kill(cluster.owner(alice))
        assert await alice.deposit(Decimal(1)) == 2

@pytest.mark.durum
async def test_real(durum_cluster):
    async with durum_cluster([Account], silos=1) as cluster:
        assert await cluster.actor(Account, "alice").deposit(Decimal(1)) == 1

@pytest.mark.durum(virtual=True)
@pytest.mark.parametrize("amount", [1, 2])
async def test_parametrized(amount, tmp_path):
    async with TestCluster([Account], silos=1, virtual=True) as cluster:
        assert await cluster.actor(Account, "alice").deposit(Decimal(amount)) == amount
    assert tmp_path.is_dir()

class TestInAClass:
    async def helper(self):
        return 7

    @pytest.mark.durum(virtual=True)
    async def test_method(self):
        await asyncio.sleep(3600)
        assert await self.helper() == 7
"""


@pytest.mark.parametrize(
    ("options", "ini"),
    [((), AUTO), ((), LOOP + "asyncio_mode = strict"), (WITHOUT_ASYNCIO, "")],
    ids=["pytest-asyncio auto", "pytest-asyncio strict", "without pytest-asyncio"],
)
def test_plugin_runs_marked_tests_whatever_else_is_installed(
    project: Project, options: tuple[str, ...], ini: str
) -> None:
    """Nobody should have to change how the rest of their tests run."""
    done = project.run(TESTS, *options, ini=ini)
    assert (done.code, done.count("passed")) == (0, 5), done.out


def test_plugin_leaves_other_tests_alone(project: Project) -> None:
    """It is loaded wherever Durum is installed."""
    done = project.run(
        """
        async def test_async(durum_cluster):
            async with durum_cluster([Account], silos=1) as cluster:
                assert await cluster.actor(Account, "a").deposit(Decimal(1)) == 1

        def test_sync():
            pass

        @pytest.fixture
        async def cluster():
            async with TestCluster([Account], silos=1) as cluster:
                yield cluster

        async def test_own_fixture(cluster):
            assert await cluster.actor(Account, "a").deposit(Decimal(1)) == 1
        """,
        ini=AUTO,
    )
    assert (done.code, done.count("passed")) == (0, 3), done.out


def test_plugin_loads_nothing_heavy_before_it_is_asked(project: Project) -> None:
    """Every run of pytest in the environment pays for what a plugin imports."""
    (project.home / "conftest.py").write_text(
        "import sys\n"
        "def pytest_configure(config):\n"
        "    assert 'durum.testing.plugin' in sys.modules\n"
        "    assert not {'msgspec', 'sqlite3', 'redis', 'uhashring'} & set(sys.modules)\n"
    )
    (project.home / "test_it.py").write_text("def test_nothing(): pass\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *WITHOUT_ASYNCIO],
        cwd=project.home,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


FAILING = """
import random

@pytest.mark.durum(virtual=True)
async def test_fails(durum_seed):
    value = random.Random(durum_seed).random()
    await asyncio.sleep(1)
    raise AssertionError(f"drawn {value}")

@pytest.mark.durum(virtual=True)
async def test_passes():
    await asyncio.sleep(1)
"""


def test_plugin_prints_the_seed_of_a_test_that_fails_and_takes_it_again(project: Project) -> None:
    """A failure that cannot be repeated cannot be mended."""
    done = project.run(FAILING, ini=AUTO)
    assert (done.count("failed"), done.count("passed")) == (1, 1), done.out
    seeds = re.findall(r"--durum-seed (\d+)", done.out)
    assert len(seeds) == 1, "only for the one that failed"
    drawn = re.search(r"drawn ([0-9.]+)", done.out)
    assert drawn
    again = project.run(FAILING, "--durum-seed", seeds[0], ini=AUTO)
    assert f"drawn {drawn[1]}" in again.out
    assert f"--durum-seed {seeds[0]}" in again.out


def test_plugin_explains_mistakes(project: Project) -> None:
    """A misspelt option must not mean real time; a test without await has no time at all."""
    done = project.run(
        """
        @pytest.mark.durum(virtul=True)
        async def test_misspelt(): pass

        @pytest.mark.durum(virtual=True)
        def test_not_async(): pass

        @pytest.mark.durum
        async def test_wants_virtual(durum_cluster):
            async with durum_cluster([Account], virtual=True): pass

        @pytest.mark.durum(virtual=True)
        async def test_hangs():
            await asyncio.Event().wait()
        """,
        ini=AUTO,
    )
    assert done.count("failed") == 4, done.out
    assert "unexpected keyword argument 'virtul'" in done.out
    assert "has to be `async def`" in done.out
    assert "the running loop's time is real" in done.out
    assert "deadlock at" in done.out
