"""The embedded queue beside bare sqlite3 loops of the same durability: WAL, synchronous=NORMAL.

The bare loops are the plainest queue in SQL that does what a job queue must: several queues in a table, priority, due
time, an owner to claim by, and one index that serves the claim. They neither check nor encode anything, and run
nothing. Beside the goal for pushes stands, without one, the plainest insert there is: into a table of ids and bodies,
from which no two processes could take their messages. Messages are of 1 KiB; the figures for the smallest ones, where
all that a loop leaves out weighs most, stand beside them.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boost_core import App

from bench.measure import Figure, at_least, ratio, seconds

SINGLES = 2000
BATCHED = 40_000
BATCH = 100
HEAD = b'json\n{"v":1,"id":"0123456789abcdef0123456789abcdef","task":"noop","at":1790000000000000,"args":[12345,"'
KIB = 1024 - len(HEAD) - 3


class Bare:
    """One connection, prepared statements, no locks but SQLite's own, nothing that runs."""

    def __init__(self, path: Path, text: int) -> None:
        self._row = ("noop", 1, HEAD + b"x" * text + b'"]}')
        self._connection = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL"):
            self._connection.execute(f"PRAGMA {pragma}").fetchall()
        self._connection.execute(
            "CREATE TABLE q (id INTEGER PRIMARY KEY, queue TEXT NOT NULL, prio INTEGER NOT NULL, due INTEGER NOT NULL,"
            " attempt INTEGER NOT NULL, owner INTEGER, body BLOB NOT NULL)"
        )
        self._connection.execute("CREATE INDEX waiting ON q (queue, prio DESC, id) WHERE owner IS NULL")
        self._connection.execute("CREATE TABLE plain (id INTEGER PRIMARY KEY, body BLOB NOT NULL)")

    def insert_one_by_one(self, count: int) -> None:
        """Insert, a transaction each."""
        for _ in range(count):
            self._connection.execute(_INSERT, self._row)

    def insert_plainly(self, count: int) -> None:
        """Insert into a table of ids and bodies, which nobody could claim from; a transaction each."""
        for _ in range(count):
            self._connection.execute("INSERT INTO plain (body) VALUES (?)", self._row[-1:])

    def insert_batches(self, count: int) -> None:
        """Insert 1,000 a transaction, as push_many does."""
        for _ in range(count // 1000):
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(_INSERT, [self._row] * 1000)
            self._connection.execute("COMMIT")

    def drain(self) -> None:
        """Claim 100, ack 100, until nothing is left; two transactions a hundred."""
        while True:
            self._connection.execute("BEGIN IMMEDIATE")
            rows = self._connection.execute(_CLAIM, ("noop", int(time.time() * 1e6), BATCH)).fetchall()
            self._connection.execute("COMMIT")
            if not rows:
                return
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("DELETE FROM q WHERE id = ? AND owner = 1", [(row[0],) for row in rows])
            self._connection.execute("COMMIT")


_INSERT = "INSERT INTO q (queue, prio, due, attempt, body) VALUES (?, 0, ?, 0, ?)"
_CLAIM = (
    "UPDATE q SET owner = 1, attempt = attempt + 1 WHERE id IN (SELECT id FROM q"
    " WHERE queue = ? AND owner IS NULL AND due <= ? ORDER BY prio DESC, id LIMIT ?) RETURNING id, body"
)


class Ours:
    """The same through boost: arguments checked and encoded, priorities, delays, leases, and acks after the run."""

    def __init__(self, path: Path, text: int) -> None:
        self._text = "x" * text
        os.environ["BOOST_SQLITE_PATH"] = str(path)
        self.app = App("bench", broker="sqlite")
        self.task: Any = self.app.boost("noop", concurrency=8)(_noop)
        self.task.push(0, "")  # opens everything
        self.task.clear()

    def push_one_by_one(self, count: int) -> None:
        """Push, each stored before the next."""
        push, text = self.task.push, self._text
        for number in range(count):
            push(number, text)

    def push_batches(self, count: int) -> None:
        """Push in batches."""
        call, text = self.task.call, self._text
        self.task.push_many(call(number, text) for number in range(count))

    def drain(self, count: int) -> float:
        """Run what waits, on one worker in this process; return the seconds up to the last ack."""
        worker = self.app.worker()
        started = time.perf_counter()
        with worker:
            while worker.counts["done"] < count:
                time.sleep(0.001)
            return time.perf_counter() - started


def _noop(number: int, text: str) -> None: ...


def figures() -> list[Figure]:
    """Return the SQLite figures, for messages of 1 KiB and for the smallest."""
    return [*_figures("", KIB, push=0.7, batch=0.5), *_figures(", smallest message", 0, push=None, batch=None)]


def _figures(what: str, text: int, push: float | None, batch: float | None) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="boost-bench-") as folder:
        ours, bare = Ours(Path(folder, "queue.db"), text), Bare(Path(folder, "bare.db"), text)
        try:
            return [
                _pushing(f"sqlite push / insert{what}", ours, ours.push_one_by_one, bare.insert_one_by_one, push),
                _pushing(
                    f"sqlite push / two-column insert{what}", ours, ours.push_one_by_one, bare.insert_plainly, None
                ),
                _pushing(f"sqlite push_many / inserts{what}", ours, ours.push_batches, bare.insert_batches, batch),
                _draining(f"sqlite drain / claim + ack{what}", ours, bare, batch),
            ]
        finally:
            ours.app.close()


def _pushing(
    name: str, ours: Ours, push: Callable[[int], None], insert: Callable[[int], None], goal: float | None
) -> Figure:
    count = SINGLES if "push /" in name else BATCHED
    note = "survives kill -9 of anything"
    figure = ratio(name, lambda: push(count), lambda: insert(count), pairs=9, goal=goal, note=note)
    ours.task.clear()
    return figure


def _draining(name: str, ours: Ours, bare: Bare, goal: float | None) -> Figure:
    """Refill both before each pair; only the draining is timed."""
    bare.drain()
    values = []
    for _ in range(7):
        ours.push_batches(BATCHED)
        bare.insert_batches(BATCHED)
        mine = ours.drain(BATCHED)
        values.append(seconds(bare.drain) / mine)
    return at_least(name, values, goal, "ack after the run, 8 threads; the loop takes 100 at a time")
