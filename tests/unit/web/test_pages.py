"""What a silo's pages say, and when they say that it is not well."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import Any

import pytest

import durum
from durum import errors
from durum.silo.silo import Silo
from durum.store.protocol import Durability, Level
from durum.views import Status
from durum.web.pages import Pages


class Greeter(durum.Actor):
    greeted: int = 0

    async def greet(self) -> int:
        self.greeted += 1
        return self.greeted


def fetch(url: str, accept: str = "") -> tuple[int, str, bytes]:
    request = urllib.request.Request(url, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=10) as page:
            return page.status, page.headers["Content-Type"], page.read()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.headers["Content-Type"], exc.read()


async def get(pages: Pages, path: str, accept: str = "") -> tuple[int, str, bytes]:
    return await asyncio.to_thread(fetch, f"http://{pages.address}{path}", accept)


async def health(pages: Pages, path: str) -> tuple[int, dict[str, Any]]:
    code, kind, body = await get(pages, path)
    assert kind == "application/json"
    return code, json.loads(body)


async def test_pages_answer_before_and_after_the_silo_has_started() -> None:
    """A start-up probe asks early; it must get a no, and not a refused connection that looks like a bug."""
    silo = Silo([Greeter], "memory:")
    async with Pages(silo, "127.0.0.1:0") as pages:
        for path in ("/healthz", "/readyz", "/metrics"):
            code, _, body = await get(pages, path)
            assert (code, body) == (503, b"not started yet\n")
        async with silo:
            while not silo.statistics().ready:
                await asyncio.sleep(0.01)
            code, found = await health(pages, "/healthz")
            assert code == 200
            assert found["silo"] == silo.id
            assert 0 < found["lease_left_s"] <= 6
            assert found["partitions"] == {"wanted": 1024, "held": 1024, "serving": 1024}
            assert found["store"]["durability"] == "D0"
            assert found["store"]["trouble"] == ""
            assert (await health(pages, "/readyz"))[0] == 200
            assert silo.web == pages.address
            (row,) = silo.life.view.rows
            assert row.web == pages.address


async def test_silo_without_a_lease_is_neither_alive_nor_ready() -> None:
    """It answers no call; nobody may be sent to it."""
    silo = Silo([Greeter], "memory:")
    async with Pages(silo, "127.0.0.1:0") as pages, silo:
        silo.life.services.lease.end()
        code, found = await health(pages, "/healthz")
        assert (code, found["alive"], found["lease_left_s"]) == (503, False, 0.0)
        code, found = await health(pages, "/readyz")
        assert (code, found["ready"]) == (503, False)


async def test_silo_that_leaves_is_alive_and_not_ready() -> None:
    """It must not be killed while it hands over, and gets no new clients."""
    silo = Silo([Greeter], "memory:")
    async with Pages(silo, "127.0.0.1:0") as pages, silo:
        await silo.life.membership.move(Status.LEAVING, "asked to stop")
        assert (await health(pages, "/healthz"))[0] == 200
        code, found = await health(pages, "/readyz")
        assert (code, found["status"]) == (503, "leaving")


async def test_trouble_with_the_store_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thing to know when all silos fall silent."""
    silo = Silo([Greeter], "memory:")
    async with Pages(silo, "127.0.0.1:0") as pages, silo:

        async def down(*_: object) -> None:
            raise errors.StoreUnavailable("the store is being moved", applied=False)

        with monkeypatch.context() as patch:
            patch.setattr(
                silo.life.membership, "_store", Without(silo.life.membership._store, down)
            )
            assert await silo.life.membership.renew() is False
        _, found = await health(pages, "/healthz")
        assert "being moved" in found["store"]["trouble"]
        _, _, body = await get(pages, "/metrics")
        assert b"durum_store_trouble 1.0" in body
        assert await silo.life.membership.renew() is True
        assert (await health(pages, "/healthz"))[1]["store"]["trouble"] == ""


class Without:
    """A store without renewals."""

    def __init__(self, store: object, beat: object) -> None:
        self._store = store
        self.beat = beat

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


async def test_metrics_count_what_happens() -> None:
    """Two calls, one commit each, and a kind that nobody hosts."""
    silo = Silo([Greeter], "memory:")
    async with Pages(silo, "127.0.0.1:0") as pages, silo, silo.connect() as cluster:
        await cluster.actor(Greeter, "x").greet()
        await cluster.actor(Greeter, "x").greet()
        code, kind, body = await get(pages, "/metrics")
        assert code == 200
        assert kind.startswith("text/plain")
        lines = body.decode().splitlines()
        for line in (
            'durum_calls_total{kind="Greeter",method="greet",outcome="ok"} 2.0',
            'durum_turns_total{end="committed"} 2.0',
            'durum_activations{kind="Greeter"} 1.0',
            'durum_store_duration_seconds_count{operation="commit"} 2.0',
            'durum_call_duration_seconds_bucket{kind="Greeter",le="+Inf",method="greet"} 2.0',
            'durum_partitions{state="serving"} 1024.0',
            'durum_connections{peer="client"} 1.0',
            "durum_store_durability_level 0.0",
        ):
            assert line in lines
        code, kind, body = await get(pages, "/metrics", "application/openmetrics-text")
        assert code == 200
        assert kind.startswith("application/openmetrics-text")
        assert body.endswith(b"# EOF\n")


async def test_pages_that_do_not_exist_list_those_that_do() -> None:
    """Whoever opens the address by hand should get on."""
    silo = Silo([Greeter], "memory:")
    async with Pages(silo, "127.0.0.1:0") as pages, silo:
        for path, code in (("/", 200), ("/metric", 404)):
            found = await get(pages, path)
            assert found[0] == code
            assert b"/healthz" in found[2]


async def test_address_that_is_taken_says_what_to_change() -> None:
    """Two workers with one --metrics-port."""
    one, other = Silo([Greeter], "memory:"), Silo([Greeter], "memory:")
    async with Pages(one, "127.0.0.1:0") as pages:
        with pytest.raises(errors.ConfigError, match="--metrics-port"):
            async with Pages(other, pages.address):
                pytest.fail("it was opened")


async def test_durability_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody may turn off what a service was started upon."""
    async with Silo([Greeter], "memory:") as silo:
        upkeep = silo._upkeep
        assert upkeep is not None
        before = silo.durability
        changed = durability_of(Level.D1)

        async def durability() -> object:
            return changed

        monkeypatch.setattr(
            upkeep, "_store", type("Store", (), {"durability": staticmethod(durability)})
        )
        await upkeep.look()
        assert before.level is Level.D0
        assert silo.durability is changed
        assert silo.statistics().store.durability.level is Level.D1


def durability_of(level: Level) -> Durability:
    return Durability(level=level, summary="changed under us")
