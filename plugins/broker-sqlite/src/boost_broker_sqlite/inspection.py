"""Looking at a queue from outside: how much it holds, what comes next, emptying it."""

from __future__ import annotations

import sqlite3
from typing import Final

from boost_core.plugin import Depth, Frame

from boost_broker_sqlite.schema import MICROSECONDS, priority_of, queue_range

PURGE_CHUNK: Final = 5000
"""So many messages are purged in one transaction, so that others needn't wait long."""

_COUNTS: Final = """
SELECT
    (SELECT count(*) FROM ready WHERE place BETWEEN :low AND :high)
    - (SELECT count(*) FROM ready WHERE expires <= :now AND place BETWEEN :low AND :high),
    (SELECT count(*) FROM delayed WHERE place BETWEEN :low AND :high)
    - (SELECT count(*) FROM delayed WHERE expires <= :now AND place BETWEEN :low AND :high),
    (SELECT count(*) FROM delayed
        WHERE due <= :now AND place BETWEEN :low AND :high AND (expires IS NULL OR expires > :now)),
    (SELECT count(*) FROM running WHERE place BETWEEN :low AND :high)
"""
_NEXT: Final = """
SELECT * FROM (
    SELECT place, expires, id, body FROM ready
        WHERE place BETWEEN :low AND :high AND (expires IS NULL OR expires > :now)
        ORDER BY place LIMIT :n
)
UNION ALL
SELECT * FROM (
    SELECT place, expires, id, body FROM delayed
        WHERE place BETWEEN :low AND :high AND due <= :now AND (expires IS NULL OR expires > :now)
        ORDER BY place LIMIT :n
)
ORDER BY place LIMIT :n
"""
_ANY: Final = " OR ".join(
    f"EXISTS (SELECT 1 FROM {table} WHERE place BETWEEN :low AND :high)" for table in ("ready", "delayed", "running")
)


def depth(connection: sqlite3.Connection, queue: int, now: int) -> Depth:
    """Return the counts of a queue; expired messages don't count, those that fell due are ready."""
    low, high = queue_range(queue)
    ready, delayed, due, running = connection.execute(_COUNTS, {"low": low, "high": high, "now": now}).fetchone()
    return Depth(ready=ready + due, delayed=delayed - due, running=running)


def peek(connection: sqlite3.Connection, queue: int, name: str, n: int, now: int) -> list[Frame]:
    """Return the next ``n`` frames of a queue; a frame's ``ttl`` is what is left of it."""
    low, high = queue_range(queue)
    rows = connection.execute(_NEXT, {"low": low, "high": high, "now": now, "n": n})
    return [
        Frame(job_id, name, body, priority_of(place), ttl=None if expires is None else (expires - now) / MICROSECONDS)
        for place, expires, job_id, body in rows
    ]


def purge(connection: sqlite3.Connection, queue: int) -> int:
    """Remove up to ``PURGE_CHUNK`` messages that wait or are delayed; return how many."""
    low, high = queue_range(queue)
    removed = 0
    for table in ("ready", "delayed"):
        removed += connection.execute(
            f"DELETE FROM {table} WHERE place IN"
            f" (SELECT place FROM {table} WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?)",
            (low, high, PURGE_CHUNK - removed),
        ).rowcount
    return removed


def holds_any(connection: sqlite3.Connection, queue: int) -> bool:
    """Return whether a queue has a message in any state."""
    low, high = queue_range(queue)
    return bool(connection.execute(f"SELECT {_ANY}", {"low": low, "high": high}).fetchone()[0])
