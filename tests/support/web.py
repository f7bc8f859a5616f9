"""Somebody who asks a web application, within this process, lifespan included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI


@asynccontextmanager
async def asking(app: FastAPI, *, raises: bool = True) -> AsyncIterator[httpx.AsyncClient]:
    """Start an application, and yield a client of it.

    Args:
        app: which.
        raises: whether what the application does not handle comes up here, too.
    """
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(app=with_state, raise_app_exceptions=raises)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as web:
            yield web
