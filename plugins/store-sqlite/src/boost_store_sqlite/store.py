"""The store: one table of keys, values and times, shared by the processes of one machine."""

from __future__ import annotations

import functools
import itertools
import math
import random
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from boost_core.plugin import Closed, Store, StoreUnavailable
from boost_core.plugin.bell import Bell, Seat
from boost_core.plugin.native import Lock
from boost_core.plugin.sqlitefile import SqliteFile, project_file

from boost_store_sqlite.plugin import SqliteStoreOptions

APPLICATION_ID: Final = 0x62_73_73_74
"""``bsst`` in SQLite's header, by which the file is known as ours."""

MIGRATIONS: Final = (
    """
    CREATE TABLE kv (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX kv_expires ON kv (expires);
    """,
)
"""A script a schema version; ``expires`` is in microseconds since the epoch."""

MICROSECONDS: Final = 1_000_000
LOOK_SECONDS: Final = 0.5
"""A waiter looks by itself this often, in case that a writer died between its commit and its ring."""

_CLEANED: Final = 2
"""So many expired rows go for each that a put writes: more than come, so that none pile up."""

_CLEAN: Final = "DELETE FROM kv WHERE key IN (SELECT key FROM kv WHERE expires <= ? ORDER BY expires LIMIT ?)"
_KEYS_AT_ONCE: Final = 500
_CLOSE_SECONDS: Final = 1.0


class SqliteStore(Store):
    """Keyed bytes in an SQLite file. All threads take turns at its one connection."""

    options: SqliteStoreOptions

    def __init__(self, options: SqliteStoreOptions) -> None:
        super().__init__(options)
        given = options.path
        self.path = Path(given).expanduser().absolute() if given else project_file("store.db", tag="-store")
        self._file = SqliteFile(
            path=self.path,
            application_id=APPLICATION_ID,
            migrations=MIGRATIONS,
            package="boost-store-sqlite",
            fail=functools.partial(StoreUnavailable, "sqlite"),
            durability=options.durability,
            timeout=options.timeout,
        )
        self._bell = Bell(Path(f"{self.path}.bells"))
        self._seat: Seat | None = None
        self._waiting = Lock()
        self._open = self._woken = False

    # --- life ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make or check the file. Raises ``StoreUnavailable`` with the remedy."""
        if self._open:
            return
        self._file.open()
        try:
            self._bell.open()
        except OSError as error:
            self._file.close()
            raise StoreUnavailable(self.spec.name, f"{error.filename} can't be made: {error.strerror}") from error
        self._open = True

    def close(self) -> None:
        """Close the file; idempotent. A blocked ``wait`` returns first."""
        if not self._open:
            return
        self._open = False
        self.wake()
        idle = self._waiting.acquire(timeout=_CLOSE_SECONDS)
        if self._seat is not None:
            self._seat.close()
        if idle:
            self._waiting.release()
        self._bell.close()
        self._file.close()

    def after_fork(self) -> None:
        """In a forked child: close the inherited locks."""
        self._open = False
        if self._seat is not None:
            self._seat.after_fork()
        self._file.after_fork()

    # --- keys and values -------------------------------------------------------------------------

    def get(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values of the keys that exist and haven't expired."""
        self._check_open()
        with self._file.read() as connection:
            return self._read(connection, keys)

    def put(self, items: Mapping[str, bytes], ttl: float) -> None:
        """Write all items in one transaction."""
        self._check_open()
        now = self._now()
        expires = now + int(ttl * MICROSECONDS)
        with self._file.write() as connection:
            connection.executemany(
                "INSERT INTO kv (key, value, expires) VALUES (?, ?, ?)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires = excluded.expires",
                [(key, value, expires) for key, value in items.items()],
            )
            connection.execute(_CLEAN, (now, _CLEANED * len(items)))
        self._bell.ring()

    def delete(self, keys: Sequence[str]) -> int:
        """Remove keys; return how many existed, expired ones not counted."""
        self._check_open()
        with self._file.write() as connection:
            existed = len(self._read(connection, keys))
            connection.executemany("DELETE FROM kv WHERE key = ?", [(key,) for key in keys])
        return existed

    # --- waiting ---------------------------------------------------------------------------------

    def wait(self, keys: Sequence[str], timeout: float) -> Mapping[str, bytes]:
        """Return as soon as any key exists, with all that do; ``{}`` after ``timeout`` seconds, or when woken."""
        self._check_open()
        deadline = time.monotonic() + timeout
        with self._waiting:
            seat = self._take_seat()
            try:
                return self._wait(seat, keys, deadline)
            finally:
                seat.unmark()

    def _wait(self, seat: Seat, keys: Sequence[str], deadline: float) -> Mapping[str, bytes]:
        while self._open:
            with self._file.locked() as connection:  # a value committed after this sees the mark
                found = self._read(connection, keys)
                if not found:
                    seat.mark()
            remaining = deadline - time.monotonic()
            if found or self._woken or remaining <= 0:
                self._woken = False
                return found
            seat.wait(min(remaining, LOOK_SECONDS * random.uniform(0.8, 1.2)))
        return {}

    def wake(self) -> None:
        """Let a blocked ``wait`` return now."""
        self._woken = True
        if self._seat is not None:
            self._seat.wake()

    def _take_seat(self) -> Seat:
        if self._seat is None:
            try:
                self._seat = self._bell.seat()
            except OSError as error:
                raise StoreUnavailable(self.spec.name, f"no seat to wait at: {error}") from error
        return self._seat

    # --- the parts ---------------------------------------------------------------------------------

    def _read(self, connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, bytes]:
        now = self._now()
        found: dict[str, bytes] = {}
        for some in _chunks(keys):
            marks = ",".join("?" * len(some))
            found.update(
                connection.execute(f"SELECT key, value FROM kv WHERE key IN ({marks}) AND expires > ?", (*some, now))
            )
        return found

    def _now(self) -> int:
        return int(self.clock.time() * MICROSECONDS)

    def _check_open(self) -> None:
        if not self._open:
            raise Closed(f"store {self.spec.name!r}")


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield keys by at most 500, filled up to a power of two: few statements, so they stay prepared."""
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        size = 1 << math.ceil(math.log2(len(some)))
        yield (*some, *itertools.repeat(some[0], size - len(some)))
