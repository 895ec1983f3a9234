"""What ``boost doctor`` looks at where the queue is an SQLite file."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator

from boost_core.plugin import Examined, Finding, Level
from boost_core.plugin.sqlitefile import DURABILITIES, filesystem_of

from boost_broker_sqlite.broker import SqliteBroker

LITTLE_SPACE = 256 * 1024 * 1024


def check(subject: Examined) -> Iterator[Finding]:
    """Tell what the file survives, and whether its disk has room."""
    broker: SqliteBroker = subject.broker
    durability = broker.options.durability
    yield Finding(
        Level.OK,
        f"SQLite {sqlite3.sqlite_version}, written ahead, synchronous={DURABILITIES[durability]}, on "
        f"{filesystem_of(broker.path.parent) or 'an unknown file system'}",
    )
    if durability == "process":
        yield Finding(
            Level.OK,
            "survives kill -9 of anything; the last pushes before a power cut may be lost",
            'durability="power" keeps them too, at the price of a disk write a push.',
        )
    free = shutil.disk_usage(broker.path.parent).free
    if free < LITTLE_SPACE:
        yield Finding(
            Level.DANGER, f"only {free // 1024**2} MiB are free where {broker.path} is", "Make room: pushes will fail."
        )
