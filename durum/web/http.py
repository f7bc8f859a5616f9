"""The few words of HTTP/1.1 that probes and scrapers speak. Owns connections and limits; knows no page.

GET and HEAD, no bodies, one request a connection. Whatever needs more than that needs a real server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

from durum.ids import Address, split_address
from durum.tasks import TaskOwner
from durum.telemetry import Log

_log = Log("durum.web")
_REQUEST_BYTES: Final = 8 * 1024
_REQUEST_S: Final = 5.0
_CONNECTIONS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What was asked.

    Args:
        path: without the query.
        headers: by lower-case name.
    """

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What to say.

    Args:
        status: the status.
        body: the content.
        content_type: of the body.
    """

    status: HTTPStatus = HTTPStatus.OK
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"


Respond = Callable[[Request], Awaitable[Answer]]


class _Refused(Exception):
    """A request that is answered by its status alone."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


class HttpServer:
    """Answers on one address.

    Args:
        respond: makes the answers.
    """

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self._tasks = TaskOwner("web")
        self._server: asyncio.Server | None = None
        self._open: dict[_Conversation, None] = {}
        self.address = Address("")
        """Where it listens, with the port that was taken."""

    async def start(self, address: Address) -> None:
        """Begin to listen.

        Raises:
            OSError: the address is taken or not this host's.
        """
        host, port = split_address(address)
        await self._tasks.open()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._accept, host, port)
        except OSError:
            await self._tasks.close()
            raise
        taken = self._server.sockets[0].getsockname()[1]
        self.address = Address(f"{f'[{host}]' if ':' in host else host}:{taken}")

    async def close(self) -> None:
        """Stop listening, and break what is open."""
        if self._server is not None:
            self._server.close()
            await self._tasks.close()
            for each in list(self._open):
                each.abort()

    def _accept(self) -> asyncio.Protocol:
        return _Conversation(self._begin, self._open)

    def _begin(self, conversation: _Conversation, head: bytes) -> None:
        self._tasks.start(self._converse(conversation, head), "answer")

    async def _converse(self, conversation: _Conversation, head: bytes) -> None:
        method, answer = "GET", Answer()
        try:
            method, request = _parse(head)
            answer = await self._respond(request)
        except _Refused as exc:
            answer = Answer(status=exc.status, body=exc.status.phrase.encode() + b"\n")
        except Exception as exc:  # noqa: BLE001 - one page's mistake is not the silo's end
            _log.error("a page failed", exc)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            answer = Answer(status=status, body=status.phrase.encode() + b"\n")
        conversation.end(_written(answer, with_body=method != "HEAD"))

    def __repr__(self) -> str:
        return f"<HttpServer {self.address} open={len(self._open)}>"


class _Conversation(asyncio.Protocol):
    """One connection: a request's head, then an answer."""

    def __init__(
        self, begin: Callable[[_Conversation, bytes], None], others: dict[_Conversation, None]
    ) -> None:
        self._begin = begin
        self._others = others
        self._head = bytearray()
        self._begun = False
        self._transport: asyncio.Transport
        self._limit: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's is none by inheritance.
        self._transport = cast("asyncio.Transport", transport)
        self._others[self] = None
        loop = asyncio.get_running_loop()
        self._limit = loop.call_later(_REQUEST_S, self.abort)
        if len(self._others) > _CONNECTIONS:
            self.end(_written(Answer(status=HTTPStatus.SERVICE_UNAVAILABLE), with_body=False))

    def data_received(self, data: bytes) -> None:
        if self._begun:
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._begun = True
            self._begin(self, bytes(self._head))
        elif len(self._head) > _REQUEST_BYTES:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.end(_written(Answer(status=status), with_body=False))

    def end(self, answer: bytes) -> None:
        """Say it, and close once it was read or the time is up."""
        self._begun = True
        if not self._transport.is_closing():
            self._transport.write(answer)
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        self._limit.cancel()
        self._others.pop(self, None)


def _parse(head: bytes) -> tuple[str, Request]:
    lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    method, target, _ = parts
    if method not in ("GET", "HEAD"):
        raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED)
    headers = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon:
            raise _Refused(HTTPStatus.BAD_REQUEST)
        headers[name.strip().lower()] = value.strip()
    return method, Request(path=target.partition("?")[0], headers=headers)


def _written(answer: Answer, *, with_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (answer.body if with_body else b"")
