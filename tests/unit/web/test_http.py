"""The small server of probes and scrapers: what it answers, and what it does not let anybody do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus

import pytest

from durum.ids import Address, split_address
from durum.web import http
from durum.web.http import Answer, HttpServer, Request


async def respond(request: Request) -> Answer:
    if request.path == "/fail":
        raise ValueError("as asked")
    if request.path == "/missing":
        return Answer(status=HTTPStatus.NOT_FOUND, body=b"no")
    return Answer(body=f"{request.path} {request.headers.get('accept', '')}".encode())


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    one = HttpServer(respond)
    await one.start(Address("127.0.0.1:0"))
    yield one
    await one.close()


async def say(server: HttpServer, *parts: bytes) -> tuple[int, bytes]:
    """Send something, bit by bit, and read until the end."""
    reader, writer = await asyncio.open_connection(*split_address(server.address))
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(10):
            answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head:
        return 0, b""
    lengths = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
    assert len(lengths) == 1
    return int(head.split(b" ")[1]), body


async def test_answers_a_request(server: HttpServer) -> None:
    """The plain path, with a query and headers."""
    code, body = await say(server, b"GET /x?y=1 HTTP/1.1\r\nHost: a\r\nACCEPT: b\r\n\r\n")
    assert (code, body) == (200, b"/x b")


async def test_answers_a_request_that_comes_in_pieces(server: HttpServer) -> None:
    """Networks cut where they like."""
    code, body = await say(server, b"GE", b"T / HTT", b"P/1.1\r\nHost: a\r\n", b"\r", b"\n")
    assert (code, body) == (200, b"/ ")


async def test_head_has_no_body(server: HttpServer) -> None:
    """Some probes ask so."""
    assert await say(server, b"HEAD / HTTP/1.1\r\n\r\n") == (200, b"")


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET /missing HTTP/1.1\r\n\r\n", 404),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"DELETE / HTTP/1.1\r\n\r\n", 405),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\xff\x00\xfe\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /fail HTTP/1.1\r\n\r\n", 500),
    ],
)
async def test_everything_else_is_refused(server: HttpServer, request_: bytes, code: int) -> None:
    """By its status, and without ending the server."""
    assert (await say(server, request_))[0] == code
    assert (await say(server, b"GET / HTTP/1.1\r\n\r\n"))[0] == 200


async def test_head_beyond_the_limit_is_refused(server: HttpServer) -> None:
    """Whoever can connect must not fill the silo's memory."""
    code, _ = await say(server, b"GET / HTTP/1.1\r\nX: " + b"a" * 10_000)
    assert code == 431


async def test_silence_is_not_waited_out(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor may they keep connections for nothing."""
    monkeypatch.setattr(http, "_REQUEST_S", 0.05)
    reader, writer = await asyncio.open_connection(*split_address(server.address))
    try:
        writer.write(b"GET / HT")
        async with asyncio.timeout(10):
            assert await reader.read() == b""
    finally:
        writer.close()


async def test_connections_are_bounded(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor take the descriptors that clients need."""
    monkeypatch.setattr(http, "_CONNECTIONS", 2)
    idle = [await asyncio.open_connection(*split_address(server.address)) for _ in range(2)]
    while len(server._open) < 2:
        await asyncio.sleep(0)
    assert (await say(server, b"GET / HTTP/1.1\r\n\r\n"))[0] == 503
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()
    while server._open:
        await asyncio.sleep(0)
    assert (await say(server, b"GET / HTTP/1.1\r\n\r\n"))[0] == 200


async def test_address_that_is_taken_is_an_os_error(server: HttpServer) -> None:
    """Whoever opened it says which option to change."""
    with pytest.raises(OSError, match="in use"):
        await HttpServer(respond).start(server.address)
