"""Publishing: frames become rows, each at the end of its line."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Final

from boost_core.plugin import Frame
from boost_core.plugin.sqlitefile import SqliteFile

from boost_broker_sqlite.schema import LAST_PLACE, LEVEL_BITS, LEVELS, MICROSECONDS, base_of

_TOP: Final = (1 << LEVEL_BITS) - 1
_LAST: Final = f"SELECT {LAST_PLACE}"
_READY: Final = "INSERT INTO ready (place, deaths, expires, id, body) VALUES (:place, 0, :expires, :id, :body)"
_READY_LAST: Final = _READY.replace(":place", f"1 + {LAST_PLACE}")
_ROWS: Final = 32  # a statement of so many rows takes two thirds of the time of as many statements
_READY_ROWS: Final = (
    f"INSERT INTO ready (place, deaths, expires, id, body) VALUES {', '.join(['(?, 0, ?, ?, ?)'] * _ROWS)}"
)
_READY_MANY: Final = "INSERT INTO ready (place, deaths, expires, id, body) VALUES (?, 0, ?, ?, ?)"
_DELAYED: Final = "INSERT INTO delayed (place, due, deaths, expires, id, body) VALUES (?, ?, 0, ?, ?, ?)"


def misfit(frame: Frame, max_body: int) -> str:
    """Return what keeps a frame, too large or of an unknown priority, from being stored."""
    if len(frame.body) > max_body:
        return f"a body of {len(frame.body):,} bytes is over the {max_body:,} that it takes"
    return f"priority {frame.priority} is outside 0 to {LEVELS - 1}"


def store_one(file: SqliteFile, frame: Frame, ids: Mapping[str, int], now: float, timeout: float) -> None:
    """Insert one frame without a delay, in a transaction of its own: a push is this and little else."""
    base = base_of(ids[frame.queue], frame.priority)
    expires = None if frame.ttl is None else _moment(now, frame.ttl)
    values = {"base": base, "top": base + _TOP, "expires": expires, "id": frame.id, "body": frame.body}
    file.write_one(_READY_LAST, values, timeout)


def store(connection: sqlite3.Connection, frames: Sequence[Frame], ids: Mapping[str, int], now: float) -> None:
    """Insert frames in their order, inside the caller's transaction."""
    if len({(frame.queue, frame.priority) for frame in frames}) == 1:
        _append(connection, base_of(ids[frames[0].queue], frames[0].priority), frames, now)
        return
    lines: dict[tuple[str, int], list[Frame]] = defaultdict(list)
    for frame in frames:
        lines[frame.queue, frame.priority].append(frame)
    for (queue, priority), its in lines.items():
        _append(connection, base_of(ids[queue], priority), its, now)


def _append(connection: sqlite3.Connection, base: int, frames: Iterable[Frame], now: float) -> None:
    last = connection.execute(_LAST, {"base": base, "top": base + _TOP}).fetchone()[0]
    ready, delayed = [], []
    for place, frame in enumerate(frames, last + 1):
        expires = None if frame.ttl is None else _moment(now, frame.ttl)
        if frame.delay > 0:
            delayed.append((place, _moment(now, frame.delay), expires, frame.id, frame.body))
        else:
            ready.append((place, expires, frame.id, frame.body))
    whole = len(ready) // _ROWS * _ROWS
    for start in range(0, whole, _ROWS):
        connection.execute(_READY_ROWS, tuple(chain.from_iterable(ready[start : start + _ROWS])))
    connection.executemany(_READY_MANY, ready[whole:])
    connection.executemany(_DELAYED, delayed)


def _moment(now: float, seconds: float) -> int:
    return int((now + seconds) * MICROSECONDS)
