"""Messages as operators see them: what waits, and dead letters. Owns the questions; silos answer them.

async with durum.connect(...) as cluster:
    for letter in (await cluster.admin.messages.dead_letters()).letters:
        print(letter.kind, letter.key, letter.method, letter.text)
        await cluster.admin.messages.retry(letter)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from durum import errors, ids
from durum.grains.actor import Actor
from durum.grains.kind import kind_of
from durum.ids import GrainId, SiloId
from durum.wire import letters as wire
from durum.wire import post, values

Ask = Callable[[GrainId, str, msgspec.Struct | None], Awaitable[bytes]]
"""Ask a grain's owner, and get the encoded answer."""
AskAll = Callable[[str], Awaitable[Mapping[SiloId, bytes]]]
"""Ask every silo by itself; those that do not answer are left out."""

_ANYWHERE = GrainId("Durum/anywhere")
_PAGE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that its receiver could not take, after all its attempts.

    Args:
        id: names the letter among its receiver's.
        kind, key: of the receiver.
        method: which should have run.
        args: for it, as JSON would show them; None where they are none that a Durum wrote, or pickled.
        sender: who sent it, as `kind/key`; "" for a client.
        sent, parked: when.
        attempts: how many there were.
        error, text, traceback: what the last one raised.
        message: its id while it was a message, as logs have it.
    """

    id: str
    kind: str
    key: str
    method: str
    args: str | None
    sender: str
    sent: datetime
    parked: datetime
    attempts: int
    error: str
    text: str
    traceback: str = field(repr=False)
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterPage:
    """Some dead letters.

    Args:
        letters: within a partition the oldest first.
        after: hand it back for the next page; "" after the last.
    """

    letters: tuple[DeadLetter, ...]
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Messages that wait for one receiver in one outbox.

    Args:
        silo: which delivers them.
        kind, key: of the receiver.
        messages: how many.
        failures: attempts in vain, in a row; 0 while they go out.
        why: what the last attempt said, or "".
    """

    silo: SiloId
    kind: str
    key: str
    messages: int
    failures: int
    why: str


class MessageAdmin:
    """`cluster.admin.messages`.

    Args:
        ask, ask_all: see Ask and AskAll.
    """

    def __init__(self, ask: Ask, ask_all: AskAll) -> None:
        self._ask = ask
        self._ask_all = ask_all

    async def waiting(self) -> list[Backlog]:
        """What waits in the outboxes of all silos, the failing first: up to a thousand lines of each silo.

        A silo that does not answer in time is left out.
        """
        answers = await self._ask_all(wire.WAITING)
        found = [
            Backlog(
                silo=silo,
                kind=ids.split_grain_id(line.receiver)[0],
                key=ids.split_grain_id(line.receiver)[1],
                messages=line.messages,
                failures=line.failures,
                why=line.why,
            )
            for silo, answer in answers.items()
            for line in msgspec.msgpack.decode(answer, type=wire.Waiting).lines
        ]
        return sorted(found, key=lambda each: (not each.failures, -each.messages, each.kind))

    async def dead_letters(
        self, kind: str | type[Actor] = "", *, prefix: str = "", after: str = "", limit: int = 100
    ) -> DeadLetterPage:
        """Dead letters of all actors, of one kind, or of actors whose keys begin so.

        Args:
            kind: which; "" for all.
            prefix: what the keys begin with.
            after: the page's before this one; "" for the first.
            limit: at most so many, up to 1000. A page may have fewer, and not be the last.

        Raises:
            ArgumentError: `after` is none that a page gave, or a prefix without a kind.
        """
        name = kind if isinstance(kind, str) else kind_of(kind).name
        if prefix and not name:
            raise errors.ArgumentError("prefix: it needs a kind.")
        partition, _, last = (after or "0:").partition(":")
        try:
            asked = wire.Letters(
                f"{name}/{prefix}" if name else "", int(partition), bytes.fromhex(last), limit
            )
        except ValueError:
            raise errors.ArgumentError(f"after: {after!r} is not what a page gave.") from None
        answer = await self._ask(_ANYWHERE, wire.LETTERS, asked)
        page = msgspec.msgpack.decode(answer, type=wire.LetterPage)
        letters = tuple(_shown(letter, content) for _, letter, content in page.letters)
        more = page.partition < page.partitions
        return DeadLetterPage(
            letters=letters, after=f"{page.partition}:{page.after.hex()}" if more else ""
        )

    async def every_dead_letter(
        self, kind: str | type[Actor] = "", *, prefix: str = ""
    ) -> AsyncIterator[DeadLetter]:
        """Walk through all dead letters, page by page."""
        after = ""
        while True:
            page = await self.dead_letters(kind, prefix=prefix, after=after, limit=_PAGE)
            for letter in page.letters:
                yield letter
            after = page.after
            if not after:
                return

    async def show(self, kind: str | type[Actor], key: str, letter: str) -> DeadLetter | None:
        """One dead letter of one actor; None where there is none of that id.

        Args:
            kind, key: of the receiver.
            letter: its id.
        """
        return await self._see(kind, key, letter, "show")

    async def retry(self, letter: DeadLetter) -> bool:
        """Send a dead letter's message again, with all its attempts, behind what waits for its receiver.

        Letter and message are exchanged in one commit: it is never both, and never neither.

        Returns:
            False where the letter is gone already.
        """
        return await self._see(letter.kind, letter.key, letter.id, "retry") is not None

    async def drop(self, letter: DeadLetter) -> bool:
        """Take a dead letter away for good.

        Returns:
            False where it is gone already.
        """
        return await self._see(letter.kind, letter.key, letter.id, "drop") is not None

    async def _see(
        self, kind: str | type[Actor], key: str, letter: str, act: str
    ) -> DeadLetter | None:
        name = kind if isinstance(kind, str) else kind_of(kind).name
        try:
            asked = wire.See(bytes.fromhex(letter), act)
        except ValueError:
            raise errors.ArgumentError(f"{letter[:100]!r} is no dead letter's id.") from None
        answer = await self._ask(ids.grain_id(name, key), wire.LETTER, asked)
        content = msgspec.msgpack.decode(answer, type=bytes | None)
        return None if content is None else _shown(asked.name, content)


def _shown(name: bytes, content: bytes) -> DeadLetter:
    letter = post.decode_letter(content)
    row = post.decode_row(letter.row)
    kind, key = ids.split_grain_id(letter.receiver)
    try:
        args: str | None = values.as_json(row.args).decode()
    except Exception:  # noqa: BLE001 - whatever is wrong with them, the rest is shown
        args = None
    return DeadLetter(
        id=name.hex(),
        kind=kind,
        key=key,
        method=row.method,
        args=args,
        sender=row.sender,
        sent=datetime.fromtimestamp(row.sent_ms / 1000, UTC),
        parked=datetime.fromtimestamp(letter.parked_ms / 1000, UTC),
        attempts=letter.attempts,
        error=letter.error,
        text=letter.text,
        traceback=letter.traceback,
        message=letter.message,
    )
