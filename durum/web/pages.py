"""What a silo shows to those who operate it: /metrics, /healthz, /readyz. Owns the pages and their address.

They are served from the loop that runs turns, on purpose: a silo whose loop is held answers no probe.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

from durum import errors
from durum.ids import Address, split_address
from durum.silo.silo import Silo
from durum.telemetry import Log
from durum.web import health, metrics
from durum.web.http import Answer, HttpServer, Request

_log = Log("durum.web")
_JSON: Final = "application/json"
_INDEX: Final = b"/metrics  /healthz  /readyz\n"


class Pages:
    """A silo's pages, from entering the context to leaving it.

        silo = Silo(...)
        async with Pages(silo, "127.0.0.1:9464"), silo:
            await silo.run()

    Args:
        silo: not started yet: its row in the membership table then tells where the pages are.
        listen: where to answer. There is no password: whoever can connect can read, and nothing else.
        advertise: the host under which others reach the pages, if that is not where they listen.
    """

    def __init__(self, silo: Silo, listen: str, *, advertise: str = "") -> None:
        self._silo = silo
        self._listen = Address(listen)
        self._advertise = advertise
        self._server = HttpServer(self._respond)

    @property
    def address(self) -> Address:
        """Where it answers."""
        return self._server.address

    async def _respond(self, request: Request) -> Answer:
        try:
            found = self._silo.statistics()
        except errors.ConfigError:
            return Answer(status=HTTPStatus.SERVICE_UNAVAILABLE, body=b"not started yet\n")
        if request.path == "/metrics":
            loop = asyncio.get_running_loop()
            accept = request.headers.get("accept", "")
            body, content_type = await loop.run_in_executor(None, metrics.render, found, accept)
            return Answer(body=body, content_type=content_type)
        if request.path in ("/healthz", "/readyz"):
            good = found.alive if request.path == "/healthz" else found.ready
            return Answer(
                status=HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE,
                body=json.dumps(health.report(found)).encode() + b"\n",
                content_type=_JSON,
            )
        if request.path == "/":
            return Answer(body=_INDEX)
        return Answer(status=HTTPStatus.NOT_FOUND, body=_INDEX)

    async def __aenter__(self) -> Self:
        try:
            await self._server.start(self._listen)
        except OSError as exc:
            raise errors.ConfigError(
                f"cannot serve metrics on {self._listen}: {exc.strerror or exc}. Stop what has the"
                " address, or choose another --metrics-port; 0 takes a free one."
            ) from exc
        host, port = split_address(self.address)
        self._silo.web = f"{self._advertise or host}:{port}"
        _log.info("pages served", address=self.address)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._server.close()
