"""The shop's HTTP face.

    uvicorn examples.fastapi_shop.app:app

Without DURUM_TARGET a silo runs inside the web server's process, on a store in ./shop.db. With it, as in
DURUM_TARGET=redis://localhost:6379/0, the actors live in silos of their own: durum silo
examples/fastapi_shop/shop.py --store redis://localhost:6379/0
"""

from __future__ import annotations

import os
from dataclasses import asdict

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

import durum
from durum import Silo
from durum.web.fastapi import Cluster, Durum, IdempotencyKey
from examples.fastapi_shop.shop import Cart, Contents, Paid, SoldOut, Stock


def silo() -> Silo:
    """The silo that lives in the web server's process, where no other was named."""
    return Silo([Cart, Stock], store="sqlite:///shop.db")


class Order(BaseModel):
    """What a customer puts into the cart."""

    article: str
    pieces: int = Field(gt=0, le=100)


def make_app(backend: Durum) -> FastAPI:
    """The application, on some cluster."""
    app = FastAPI(title="Durum's shop", lifespan=backend.lifespan)
    backend.answer_errors(app)

    @app.post("/carts/{customer}/items")
    async def add(
        customer: str, order: Order, cluster: Cluster, key: IdempotencyKey = None
    ) -> Contents:
        # The client chooses the key and repeats the request until it has an answer: the order is
        # entered once. Without a key, a lost connection leaves the client guessing.
        cart = cluster.actor(Cart, customer)
        if key is not None:
            cart = durum.options(cart, idempotency_key=key)
        try:
            return await cart.add(order.article, order.pieces)
        except (SoldOut, Paid) as exc:
            raise HTTPException(409, str(exc)) from exc
        except ValueError as exc:
            raise HTTPException(404, str(exc)) from exc

    @app.post("/carts/{customer}/check-out")
    async def check_out(customer: str, cluster: Cluster) -> Contents:
        return await cluster.actor(Cart, customer).check_out()

    @app.get("/carts/{customer}")
    async def show(customer: str, cluster: Cluster) -> dict[str, object]:
        return asdict(await cluster.actor(Cart, customer).show())

    @app.put("/stock/{article}")
    async def refill(article: str, pieces: int, cluster: Cluster) -> int:
        return await cluster.actor(Stock, article).refill(pieces)

    return app


app = make_app(Durum(os.environ.get("DURUM_TARGET") or silo))
