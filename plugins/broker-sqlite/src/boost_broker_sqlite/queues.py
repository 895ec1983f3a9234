"""Queue names and their ids."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from boost_core.plugin import BrokerUnavailable, QueueKind, QueueSpec, TaskConflict
from boost_core.plugin.sqlitefile import SqliteFile

from boost_broker_sqlite.inspection import holds_any
from boost_broker_sqlite.schema import MOST_QUEUES


class Queues:
    """The queues of a file. An id is remembered only once it is committed, and then for good.

    None is ever another queue's: who remembers it publishes without asking, and would publish there.
    """

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self.ids: dict[str, int] = {}

    def find(self, name: str) -> int | None:
        """Return a queue's id, None where there is no such queue."""
        if name not in self.ids:
            with self._file.read() as connection:
                row = connection.execute("SELECT id FROM queue WHERE name = ?", (name,)).fetchone()
            if row is None:
                return None
            self.ids[name] = int(row[0])
        return self.ids[name]

    def make(self, names: Iterable[str], timeout: float | None = None) -> None:
        """Make sure that queues exist and that their ids are known."""
        new = [name for name in names if name not in self.ids]
        if new:
            self.declare([QueueSpec(name=name) for name in new], timeout)

    def declare(self, queues: Iterable[QueueSpec], timeout: float | None = None) -> None:
        """Make queues exist, all or none, and record who declares them.

        Raises ``TaskConflict``, and ``BrokerUnavailable`` where the file has no room for another.
        """
        found: dict[str, int] = {}
        with self._file.write(timeout) as connection:
            for queue in queues:
                self._insert(connection, queue.name)
                number, recorded = connection.execute(
                    "SELECT id, origin FROM queue WHERE name = ?", (queue.name,)
                ).fetchone()
                found[queue.name] = number
                if queue.kind is not QueueKind.WORK or queue.origin in (None, recorded):
                    continue
                if recorded is not None and holds_any(connection, number):
                    raise _conflict(queue, recorded)
                connection.execute("UPDATE queue SET origin = ? WHERE id = ?", (queue.origin, number))
        self.ids.update(found)

    def _insert(self, connection: sqlite3.Connection, name: str) -> None:
        try:
            connection.execute("INSERT INTO queue (name) VALUES (?) ON CONFLICT (name) DO NOTHING", (name,))
        except sqlite3.IntegrityError as error:
            raise BrokerUnavailable(
                "sqlite",
                f"{self._file.path} has {MOST_QUEUES:,} queues already; there is no room for {name!r}",
                "Use fewer names, and arguments for what differs. A new file starts anew.",
            ) from error


def _conflict(queue: QueueSpec, recorded: str) -> TaskConflict:
    places = (recorded, str(queue.origin))
    return TaskConflict(
        "queue", queue.name, places, f'Give one of them a name of its own: @boost("other-{queue.name}")'
    )
