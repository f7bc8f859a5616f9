"""The fixtures of tests with real processes."""

from tests.support.stores import fleet, lasting_servers, sqlite_fleet, start_server

__all__ = ["fleet", "lasting_servers", "sqlite_fleet", "start_server"]
