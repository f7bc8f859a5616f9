"""Files of earlier formats: opened, upgraded in place, once."""

from __future__ import annotations

import contextlib
import pathlib
import sqlite3

from durum.store import sqlite_schema


def test_file_of_the_format_before_parts_is_upgraded(tmp_path: pathlib.Path) -> None:
    """Whoever upgrades Durum keeps his data."""
    path = str(tmp_path / "old.db")
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in sqlite_schema.TABLES.split(";\n"):
            db.execute(statement)
        db.execute("INSERT INTO silos VALUES ('a', x'00', 7)")
        db.execute(f"PRAGMA application_id = {sqlite_schema.APPLICATION}")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    for _ in range(2):
        upgraded, _ = sqlite_schema.connect(path, "sqlite:///old")
        with contextlib.closing(upgraded):
            (version,) = upgraded.execute("PRAGMA user_version").fetchone()
            assert version == sqlite_schema.VERSION
            assert upgraded.execute("SELECT count(*) FROM parts").fetchone() == (0,)
            assert upgraded.execute("SELECT heartbeat FROM silos").fetchone() == (7,)
