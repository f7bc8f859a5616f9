"""The pytest plugin: clusters for tests, on real or virtual time. Owns the marker, the fixtures and the word
about seeds; knows nothing of what tests test.

    @pytest.mark.durum(virtual=True)
    async def test_money_survives(durum_cluster):
        async with durum_cluster([Account]) as cluster:
            ...

It is loaded by pytest in every project that has Durum installed, so it imports nothing of Durum before a test
asks for it.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import pytest

_SEED: Final = pytest.StashKey[int]()
_MARK: Final = (
    "durum(virtual=False, seed=None): run an async test; virtual=True: in Durum's simulator, on virtual time,"
    " where the same seed gives the same run. The seed of a test that fails is printed."
)
_SEEDS: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a test's marker says."""

    virtual: bool = False
    seed: int | None = None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --durum-seed."""
    group = parser.getgroup("durum")
    group.addoption(
        "--durum-seed",
        type=int,
        metavar="N",
        help="the seed of all tests on virtual time that name none; by default each draws one",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Announce the marker."""
    config.addinivalue_line("markers", _MARK)


@pytest.fixture
def durum_seed(request: pytest.FixtureRequest) -> int:
    """The test's seed; for randomness of its own that has to repeat with the run."""
    return _seed(request.node)


@pytest.fixture
def durum_cluster(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """A maker of clusters, closed by their `async with`.

    It takes what durum.testing.TestCluster takes. Where the test is marked `virtual=True`, so is the cluster.
    """
    wish = _wish(request.node)

    def make(*args: Any, **options: Any) -> Any:
        made = import_module("durum.testing.cluster").TestCluster
        if wish is not None and wish.virtual:
            options.setdefault("virtual", True)
        return made(*args, **options)

    return make


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a marked async test: virtual ones before any other plugin can, others where none would."""
    wish = _wish(pyfuncitem)
    if wish is None:
        return None
    test = _coroutine_function(pyfuncitem.obj, through_wrappers=wish.virtual)
    if test is None:
        if wish.virtual:
            pytest.fail(
                "a test on virtual time has to be `async def`: virtual time passes only while something"
                " is awaited",
                pytrace=False,
            )
        return None
    names = pyfuncitem._fixtureinfo.argnames  # noqa: SLF001 - as pytest's own and all others do
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    if wish.virtual:
        import_module("durum.testing.run").run(test(**arguments), _seed(pyfuncitem))
    else:
        asyncio.run(test(**arguments))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
    call: pytest.CallInfo[None],  # noqa: ARG001 - pytest's signature
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say the seed of a test that failed."""
    report = yield
    if report.failed and _SEED in item.stash:
        seed = item.stash[_SEED]
        report.sections.append(
            (
                "Durum",
                f"seed {seed}. Repeat this very run: pytest --durum-seed {seed} {item.nodeid!r}",
            )
        )
    return report


def _wish(item: pytest.Item) -> _Wish | None:
    mark = item.get_closest_marker("durum")
    if mark is None:
        return None
    try:
        wish = _Wish(*mark.args, **mark.kwargs)
    except TypeError as exc:
        pytest.fail(f"@pytest.mark.durum: {exc}. It is {_MARK}", pytrace=False)
    return wish


def _seed(item: pytest.Item) -> int:
    if _SEED not in item.stash:
        wish = _wish(item) or _Wish()
        chosen = item.config.getoption("--durum-seed") if wish.seed is None else wish.seed
        drawn = int.from_bytes(os.urandom(4), "little") if chosen is None else chosen
        item.stash[_SEED] = drawn % _SEEDS
    return item.stash[_SEED]


def _coroutine_function(
    function: Callable[..., Any] | None, *, through_wrappers: bool
) -> Callable[..., Coroutine[Any, Any, None]] | None:
    """The test itself. Plugins that run async tests on a loop of their own have wrapped it by now."""
    while function is not None:
        if inspect.iscoroutinefunction(function):
            return function
        function = getattr(function, "__wrapped__", None) if through_wrappers else None
    return None
