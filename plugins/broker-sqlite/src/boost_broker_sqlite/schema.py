"""The tables. A message stands in exactly one of ``ready``, ``delayed`` and ``running``.

Its row id is its *place in line*, kept as it moves between them: queue, then level (priorities from
high to low), then sequence. So the next messages of a queue are the first rows of a range of row ids,
and publishing touches one tree; a table with an ordinary index for that makes a single push half as
dear again. A running message names its owner: a row of ``worker``, whose ids are never used twice.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x62_73_71_75
"""``bsqu`` in SQLite's header, by which the file is known as ours."""

MIGRATIONS: Final = (
    """
    CREATE TABLE queue (id INTEGER PRIMARY KEY CHECK (id < 32768), name TEXT NOT NULL UNIQUE, origin TEXT);
    CREATE TABLE worker (
        id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, pid INTEGER NOT NULL, lease_ends INTEGER NOT NULL
    );
    CREATE TABLE ready (
        place INTEGER PRIMARY KEY, deaths INTEGER NOT NULL, expires INTEGER, id TEXT NOT NULL, body BLOB NOT NULL
    );
    CREATE TABLE delayed (
        place INTEGER PRIMARY KEY, due INTEGER NOT NULL,
        deaths INTEGER NOT NULL, expires INTEGER, id TEXT NOT NULL, body BLOB NOT NULL
    );
    CREATE TABLE running (
        place INTEGER PRIMARY KEY, owner INTEGER NOT NULL,
        deaths INTEGER NOT NULL, expires INTEGER, id TEXT NOT NULL, body BLOB NOT NULL
    );
    CREATE INDEX delayed_due ON delayed (due);
    CREATE INDEX ready_expires ON ready (expires) WHERE expires IS NOT NULL;
    CREATE INDEX delayed_expires ON delayed (expires) WHERE expires IS NOT NULL;
    """,
)
"""A script a schema version; times are integer microseconds: of the machine's monotonic clock in ``lease_ends``, which
no change of its date moves, and else since the epoch."""

MICROSECONDS: Final = 1_000_000

MOST_QUEUES: Final = 32_767
"""So many have ids that fit in a place, beside level and sequence."""

LEVELS: Final = 256
LEVEL_BITS: Final = 40
QUEUE_BITS: Final = 48


def base_of(queue: int, priority: int) -> int:
    """Return the place before the first of a queue's messages of this priority."""
    return queue << QUEUE_BITS | (LEVELS - 1 - priority) << LEVEL_BITS


def level_of(place: int) -> int:
    """Return the level of a place: 0 goes first."""
    return place >> LEVEL_BITS & (LEVELS - 1)


def priority_of(place: int) -> int:
    """Return the priority that a message was published with."""
    return LEVELS - 1 - level_of(place)


def queue_range(queue: int) -> tuple[int, int]:
    """Return the lowest and the highest place of a queue."""
    return queue << QUEUE_BITS, (queue + 1 << QUEUE_BITS) - 1


LAST_PLACE: Final = """max(
    :base,
    ifnull((SELECT max(place) FROM ready WHERE place BETWEEN :base AND :top), 0),
    ifnull((SELECT max(place) FROM delayed WHERE place BETWEEN :base AND :top), 0),
    ifnull((SELECT max(place) FROM running WHERE place BETWEEN :base AND :top), 0)
)"""
"""The last place taken between ``:base`` and ``:top``, as an SQL expression: three descents of a tree."""
