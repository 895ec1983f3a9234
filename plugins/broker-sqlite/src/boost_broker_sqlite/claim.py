"""What a subscription does to messages, inside its caller's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from boost_core.plugin import Delivery

from boost_broker_sqlite.schema import level_of, queue_range

_DUE_AT_ONCE: Final = 1000
_FROM_DELAYED: Final = "FROM delayed WHERE place IN (SELECT place FROM delayed WHERE due <= ? ORDER BY due LIMIT ?)"
_NEXT: Final = "SELECT place, deaths, body FROM ready WHERE place BETWEEN ? AND ? ORDER BY place LIMIT ?"
_CLAIM: Final = (
    "INSERT INTO running (place, owner, deaths, expires, id, body)"
    " SELECT place, ?, deaths, expires, id, body FROM ready WHERE place BETWEEN ? AND ?"
)
_UNREADY: Final = "DELETE FROM ready WHERE place BETWEEN ? AND ?"

_ROWS: Final = 64
_THESE: Final = f"FROM running WHERE owner = ? AND place IN ({', '.join('?' * _ROWS)})"
_DROP: Final = f"DELETE {_THESE}"
_GIVE_BACK: Final = (
    f"INSERT INTO ready (place, deaths, expires, id, body) SELECT place, deaths, expires, id, body {_THESE}"
)
_GIVE_BACK_ALL: Final = (
    "INSERT INTO ready (place, deaths, expires, id, body)"
    " SELECT place, deaths + ?, expires, id, body FROM running WHERE owner = ?"
)

Row = tuple[int, str, int, bytes]
"""Place, queue, deaths, body."""


def take(connection: sqlite3.Connection, wanted: Sequence[tuple[str, int, int]], owner: int, now: int) -> list[Row]:
    """Make up to so many messages a queue ``owner``'s; return them, higher priorities first.

    ``wanted`` is (queue, its id, how many). What fell due or expired by ``now`` (µs) is moved or removed before.
    """
    _promote(connection, now)
    _expire(connection, now)
    taken: list[Row] = []
    for name, number, count in wanted:
        rows = connection.execute(_NEXT, (*queue_range(number), count)).fetchall()
        if rows:
            first, last = rows[0][0], rows[-1][0]  # nobody else writes, so this range is these rows
            connection.execute(_CLAIM, (owner, first, last))
            connection.execute(_UNREADY, (first, last))
            taken += [(place, name, deaths, body) for place, deaths, body in rows]
    if len(wanted) > 1:
        taken.sort(key=lambda row: level_of(row[0]))
    return taken


def _promote(connection: sqlite3.Connection, now: int) -> None:
    due = next_due(connection)
    if due is not None and due <= now:
        chosen = (now, _DUE_AT_ONCE)
        connection.execute(
            "INSERT INTO ready (place, deaths, expires, id, body)"
            f" SELECT place, deaths, expires, id, body {_FROM_DELAYED}",
            chosen,
        )
        connection.execute(f"DELETE {_FROM_DELAYED}", chosen)


def _expire(connection: sqlite3.Connection, now: int) -> None:
    for table in ("ready", "delayed"):
        first = connection.execute(f"SELECT min(expires) FROM {table} WHERE expires IS NOT NULL").fetchone()[0]
        if first is not None and first <= now:
            connection.execute(f"DELETE FROM {table} WHERE expires <= ?", (now,))


def next_due(connection: sqlite3.Connection) -> int | None:
    """Return when (epoch µs) the next delayed message falls due, None where there is none."""
    due: int | None = connection.execute("SELECT min(due) FROM delayed").fetchone()[0]
    return due


def drop(connection: sqlite3.Connection, deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Delete what its receipts still own; return the rest."""
    return _each(connection, deliveries, (_DROP,))


def give_back(connection: sqlite3.Connection, deliveries: Sequence[Delivery]) -> list[Delivery]:
    """Make what its receipts still own fetchable again, each at its old place; return the rest."""
    return _each(connection, deliveries, (_GIVE_BACK, _DROP))


def give_back_all(connection: sqlite3.Connection, owner: int, *, died: bool) -> int:
    """Make all that ``owner`` has fetchable again, counting a death if it died; return how many."""
    connection.execute(_GIVE_BACK_ALL, (int(died), owner))
    return connection.execute("DELETE FROM running WHERE owner = ?", (owner,)).rowcount


def _each(connection: sqlite3.Connection, deliveries: Sequence[Delivery], steps: Sequence[str]) -> list[Delivery]:
    """Run the steps for deliveries, many a statement; return those for which the last one found nothing.

    A statement a delivery would give the interpreter's lock away as often, to threads that keep it.
    """
    missed: list[Delivery] = []
    for owner, its in groupby(deliveries, lambda delivery: delivery.receipt[1]):
        ours = list(its)
        for start in range(0, len(ours), _ROWS):
            some = ours[start : start + _ROWS]
            connection.execute("SAVEPOINT settling")
            if _run(connection, owner, some, steps) != len(some):
                connection.execute("ROLLBACK TO settling")  # and one by one, to learn which were not found
                missed += [delivery for delivery in some if not _run(connection, owner, [delivery], steps)]
    return missed


def _run(connection: sqlite3.Connection, owner: int, deliveries: Sequence[Delivery], steps: Sequence[str]) -> int:
    """Run the steps for up to as many deliveries as they have room for; return how many the last one found."""
    places = [delivery.receipt[0] for delivery in deliveries]
    values = (owner, *places, *places[-1:] * (_ROWS - len(places)))
    for step in steps:
        found = connection.execute(step, values).rowcount
    return found
