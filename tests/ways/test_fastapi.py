"""Actors behind FastAPI: the shop of examples/fastapi_shop, and what becomes of errors."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from durum import Actor, Silo, errors
from durum.config import Limits, SiloConfig
from durum.errors import DidRun
from durum.testing import TestCluster
from durum.web.fastapi import Cluster, Durum
from examples.fastapi_shop.app import make_app
from examples.fastapi_shop.shop import Cart, Stock
from tests.support.web import asking

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def shop(**options: Any) -> AsyncIterator[tuple[TestCluster, httpx.AsyncClient]]:
    """The example on a cluster of silos, and somebody who asks it."""
    async with (
        TestCluster([Cart, Stock], **options) as cluster,
        asking(make_app(Durum(cluster.client))) as web,
    ):
        yield cluster, web


def order(article: str, pieces: int) -> dict[str, object]:
    return {"article": article, "pieces": pieces}


async def test_a_cart_is_filled_and_checked_out() -> None:
    """The example's own story, from the shelf to the till."""
    async with shop() as (_, web):
        assert (await web.put("/stock/apple", params={"pieces": 10})).json() == 10
        filled = await web.post("/carts/ann/items", json=order("apple", 3))
        assert (filled.status_code, filled.json()) == (
            200,
            {"pieces": {"apple": 3}, "total": "1.50", "paid": False},
        )
        assert (await web.post("/carts/bob/items", json=order("apple", 8))).status_code == 409
        assert (await web.post("/carts/bob/items", json=order("plum", 1))).status_code == 404
        assert (await web.post("/carts/bob/items", json=order("apple", 0))).status_code == 422
        assert (await web.post("/carts/ann/check-out")).json()["paid"] is True
        late = await web.post("/carts/ann/items", json=order("apple", 1))
        assert (late.status_code, late.json()["detail"]) == (409, "the cart of ann was checked out")


async def test_a_repeated_order_is_entered_once() -> None:
    """Browsers and proxies repeat requests; nobody wants to pay twice for it."""
    async with shop() as (cluster, web):
        await web.put("/stock/apple", params={"pieces": 10})
        ask = [
            web.post(
                "/carts/ann/items", json=order("apple", 3), headers={"Idempotency-Key": "order 1"}
            )
            for _ in range(5)
        ]
        answers = [each.json()["total"] for each in await asyncio.gather(*ask)]
        assert answers == ["1.50"] * 5
        assert await cluster.actor(Stock, "apple").count() == 7


async def test_a_silo_that_dies_costs_a_keyed_order_nothing() -> None:
    """The web server goes on while silos come and go behind it."""
    async with shop() as (cluster, web):
        await web.put("/stock/apple", params={"pieces": 10})
        cart = cluster.actor(Cart, "ann")
        point = cluster.crash(cluster.owner(cart), "after", "commit")
        answer = await web.post(
            "/carts/ann/items", json=order("apple", 3), headers={"Idempotency-Key": "order 1"}
        )
        assert answer.json()["total"] == "1.50"
        assert point.reached
        stock = cluster.actor(Stock, "apple")
        assert await stock.count() == 7


async def raising(error: Exception) -> httpx.Response:
    """What a client sees of a route that ends in an error."""
    app = FastAPI()
    Durum("127.0.0.1:1").answer_errors(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    async with asking(app, raises=False) as web:
        return await web.get("/")


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (errors.Overloaded("10.0.0.7 is full"), 503, True),
        (errors.ShuttingDown("10.0.0.7 stops"), 503, True),
        (errors.NoSilo("tried 10.0.0.7"), 503, True),
        (errors.StoreUnavailable("redis://10.0.0.7"), 503, True),
        (errors.CommitFailed("refused 10.0.0.7", DidRun.ROLLED_BACK), 503, True),
        (errors.CommitFailed("unknown 10.0.0.7", DidRun.MAYBE), 503, False),
        (errors.CallTimeout("10.0.0.7 is slow"), 504, False),
        (errors.SiloLost("10.0.0.7 is gone"), 502, False),
        (errors.NotAuthorized("10.0.0.7 says no"), 403, False),
        (errors.ReplyForgotten("10.0.0.7 forgot"), 409, False),
        (errors.NoSuchKind("10.0.0.7 has no Cart"), 500, False),
        (errors.Deadlock("10.0.0.7 waits for itself"), 500, False),
        (errors.RemoteError("10.0.0.7 failed", "x:Y", ""), 500, False),
        (errors.DataLoss("10.0.0.7 is empty"), 500, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
async def test_errors_say_what_to_do_next_and_nothing_of_the_inside(
    error: errors.DurumError, status: int, retry: bool
) -> None:
    """Machines act on status codes: one that repeats what may have run does it twice."""
    answer = await raising(error)
    assert answer.status_code == status
    assert ("Retry-After" in answer.headers) is retry
    body = answer.json()
    assert body["error"] == type(error).__name__
    assert body["did_run"] == (error.did_run if isinstance(error, errors.CallError) else "no")
    assert "10.0.0.7" not in answer.text


async def test_an_argument_that_does_not_fit_is_the_client_s_business() -> None:
    """It can do something about it, if it is told which one."""
    answer = await raising(errors.ArgumentError("amount: expected decimal; the call did not run."))
    assert answer.status_code == 422
    assert "amount: expected decimal" in answer.json()["detail"]


class Echo(Actor):
    async def say(self, text: str) -> str:
        return f"{self.key}: {text}"


def echo_app(backend: Durum) -> FastAPI:
    app = FastAPI(lifespan=backend.lifespan)
    backend.answer_errors(app)

    @app.get("/{key}")
    async def say(key: str, cluster: Cluster, request: Request) -> dict[str, str]:
        said = await cluster.actor(Echo, key).say("hello")
        return {"said": said, "pool": getattr(request.state, "pool", "")}

    return app


async def test_a_silo_lives_inside_the_application() -> None:
    """One process is all that a small service needs; and an application is started again in each test."""
    started: list[Silo] = []

    def silo() -> Silo:
        started.append(Silo([Echo]))
        return started[-1]

    app = echo_app(Durum(silo))
    for _ in range(2):
        async with asking(app) as web:
            assert (await web.get("/ann")).json()["said"] == "ann: hello"
    assert len(started) == 2


async def test_the_application_s_own_lifespan_runs_inside() -> None:
    """There is one place for a lifespan, and most applications have one already."""
    seen = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        seen.append("began")
        yield {"pool": "database"}
        seen.append("ended")

    app = echo_app(Durum(lambda: Silo([Echo]), lifespan=own))
    async with asking(app) as web:
        assert (await web.get("/ann")).json() == {"said": "ann: hello", "pool": "database"}
    assert seen == ["began", "ended"]


async def test_an_application_that_reaches_nobody_does_not_start() -> None:
    """Better than one that answers 500 to everybody until somebody looks."""
    backend = Durum("127.0.0.1:1", connect_timeout_s=0.1)
    with pytest.raises(errors.NoSilo):
        async with asking(echo_app(backend)):
            pass
    with pytest.raises(errors.ConfigError):
        Durum("nonsense")


async def test_a_missing_lifespan_is_explained() -> None:
    """httpx's ASGITransport runs none, which everybody finds out by an AttributeError."""
    app = FastAPI()

    @app.get("/")
    async def route(cluster: Cluster) -> None:
        raise AssertionError

    async with asking(app) as web:
        with pytest.raises(errors.ConfigError, match=r"FastAPI\(lifespan=durum\.lifespan\)"):
            await web.get("/")


async def test_overload_reaches_the_client_as_503() -> None:
    """From the silo's limit to the header that makes a client slow down."""
    config = SiloConfig(partitions=8, limits=Limits(silo_calls=1))

    class Sleeper(Actor):
        async def sleep(self) -> None:
            await asyncio.sleep(0.2)

    async with TestCluster([Sleeper], silos=1, config=config) as cluster:
        backend = Durum(cluster.client)
        app = FastAPI()
        backend.answer_errors(app)

        @app.get("/")
        async def sleep() -> None:
            await cluster.actor(Sleeper, "one").sleep()

        async with asking(app) as web:
            answers = await asyncio.gather(*(web.get("/") for _ in range(3)))
    assert sorted(each.status_code for each in answers) == [200, 503, 503]
    assert {each.headers.get("Retry-After") for each in answers if each.status_code == 503} == {"1"}


def test_the_example_s_types_reach_openapi() -> None:
    """Cluster is no parameter of the request; the rest is documented as FastAPI documents it."""
    schema = make_app(Durum("127.0.0.1:1")).openapi()
    add = schema["paths"]["/carts/{customer}/items"]["post"]
    assert [each["name"] for each in add["parameters"]] == ["customer", "Idempotency-Key"]
    assert schema["components"]["schemas"]["Contents"]["properties"]["paid"]["type"] == "boolean"


@pytest.fixture
def without_fastapi(tmp_path: Path) -> Path:
    (tmp_path / "fastapi.py").write_text("raise ImportError('not installed')")
    return tmp_path


def test_without_fastapi_the_error_names_the_extra(without_fastapi: Path) -> None:
    """A ModuleNotFoundError from inside of Durum looks like Durum's own mistake."""
    done = subprocess.run(
        [sys.executable, "-c", "import durum.web.fastapi"],
        cwd=without_fastapi,
        env={"PYTHONPATH": f"{without_fastapi}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pip install 'durum[fastapi]'" in done.stderr
