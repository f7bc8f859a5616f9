"""A silo's row as bytes, for two neighbouring releases at once."""

from __future__ import annotations

import msgspec
import pytest

from durum import errors
from durum.store import rows
from durum.views import SiloRow, Status
from tests.support.services import row


@pytest.mark.parametrize("status", list(Status))
def test_row_comes_back_equal(status: Status) -> None:
    """Compare-and-set compares what was read with what was written."""
    one = row(status=status, weight=1, kinds={"b": 1, "a": 2})
    raw = rows.encode(one)
    assert rows.decode(raw) == one
    assert rows.status_of(raw) is status


def test_row_of_a_newer_release_keeps_its_unknown_fields() -> None:
    """In a rolling upgrade the old release votes on the new one's row; it must not strip it."""

    class Newer(SiloRow, frozen=True, kw_only=True):
        zone: str = ""

    raw = rows.encode(Newer(silo=row().silo, status=Status.ACTIVE, zone="eu"))
    seen = rows.decode(raw)
    written = rows.encode(msgspec.structs.replace(seen, reason="x"), raw)
    fields = msgspec.msgpack.decode(written[1:])
    assert (fields["zone"], fields["reason"]) == ("eu", "x")


@pytest.mark.parametrize("raw", [b"", b"A", b"A\xc1", b"A\x80", b"garbage"])
def test_row_that_is_none_is_data_loss(raw: bytes) -> None:
    """Garbage in the table must not pass for an empty one."""
    with pytest.raises(errors.DataLoss):
        rows.decode(raw)
