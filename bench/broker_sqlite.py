"""Compares broker-sqlite with bare loops on sqlite3, in interleaved pairs: ``python bench/broker_sqlite.py``."""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from boost_broker_sqlite.broker import SqliteBroker
from boost_broker_sqlite.plugin import SPEC, SqliteOptions
from boost_core.options import build_options
from boost_core.plugin import Frame, QueueSpec

BODY: Final = os.urandom(200)
SINGLES, BATCHES, BATCH = 2000, 50, 100
PAIRS: Final = 9
Loop = Callable[[Path], dict[str, float]]


def bare(folder: Path) -> dict[str, float]:
    """Return messages/s of a queue written by hand: one table, one index to claim by, WAL, no lock of its own."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=1000"):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("CREATE TABLE q (seq INTEGER PRIMARY KEY, queue INT, prio INT, owner INT, id TEXT, body BLOB)")
    connection.execute("CREATE INDEX next ON q (queue, prio DESC, seq) WHERE owner IS NULL")
    insert = "INSERT INTO q (queue, prio, id, body) VALUES (1, 0, ?, ?)"
    claim = (
        "UPDATE q SET owner = 7 WHERE seq IN (SELECT seq FROM q WHERE queue = 1 AND owner IS NULL"
        " ORDER BY prio DESC, seq LIMIT 100) RETURNING seq, body"
    )
    rates: dict[str, float] = {}
    with _Timed(rates, "push", SINGLES):
        for _ in range(SINGLES):
            connection.execute(insert, ("a" * 32, BODY))
    with _Timed(rates, "push_many", BATCHES * BATCH):
        for _ in range(BATCHES):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(insert, [("a" * 32, BODY) for _ in range(BATCH)])
            connection.execute("COMMIT")
    with _Timed(rates, "claim+ack", SINGLES + BATCHES * BATCH):
        while True:
            rows = connection.execute(claim).fetchall()
            if not rows:
                break
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM q WHERE seq = ? AND owner = 7", [(row[0],) for row in rows])
            connection.execute("COMMIT")
    connection.close()
    return rates


def boost(folder: Path) -> dict[str, float]:
    """Return messages/s of the same through the broker's contract."""
    broker = SqliteBroker(build_options("broker 'sqlite'", SqliteOptions, {"path": str(folder / "boost.db")}))
    broker.spec = SPEC
    broker.open()
    queue = QueueSpec(name="q")
    broker.declare([queue])
    subscription = broker.subscribe([queue], {}, lambda _: None)
    rates: dict[str, float] = {}
    with _Timed(rates, "push", SINGLES):
        for _ in range(SINGLES):
            broker.publish([Frame("a" * 32, "q", BODY)], 10.0)
    with _Timed(rates, "push_many", BATCHES * BATCH):
        for _ in range(BATCHES):
            broker.publish([Frame("a" * 32, "q", BODY) for _ in range(BATCH)], 10.0)
    with _Timed(rates, "claim+ack", SINGLES + BATCHES * BATCH):
        while deliveries := subscription.fetch({"q": BATCH}, 0.0):
            subscription.ack(deliveries)
    subscription.close()
    broker.close()
    return rates


class _Timed:
    def __init__(self, rates: dict[str, float], name: str, count: int) -> None:
        self._rates, self._name, self._count = rates, name, count

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._rates[self._name] = self._count / (time.perf_counter() - self._started)


def measure(pairs: int = PAIRS) -> dict[str, list[float]]:
    """Return the broker's rate over the bare one, of each pair, by loop."""
    ratios: dict[str, list[float]] = {}
    for number in range(pairs):
        with tempfile.TemporaryDirectory() as name:
            rates: dict[Loop, dict[str, float]] = {}
            for loop in (bare, boost) if number % 2 else (boost, bare):
                rates[loop] = loop(Path(name))
        for key, rate in rates[boost].items():
            ratios.setdefault(key, []).append(rate / rates[bare][key])
    return ratios


def main() -> None:
    """Print the medians with the middle half of the pairs."""
    for name, ratios in measure().items():
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:<10} {middle:5.2f} of the bare loop  [{low:.2f} .. {high:.2f}]  {len(ratios)} pairs")


if __name__ == "__main__":
    main()
