"""Who is alive: a row with a timed lease, and a lock that the kernel frees the moment its process dies."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

import attrs
from boost_core.plugin.locks import lock, try_flock
from boost_core.plugin.sqlitefile import SqliteFile

from boost_broker_sqlite.claim import give_back_all

log = logging.getLogger("boost.broker.sqlite")


@attrs.define(eq=False)
class Worker:
    """An owner of messages. Its id is never used again; taken over, a process enlists anew."""

    id: int
    _path: Path
    _lock: int

    @classmethod
    def enlist(cls, file: SqliteFile, folder: Path, lease_ends: int) -> Worker:
        """Return a new worker. Whoever sees its row finds its lock held: both come under the file's lock."""
        held: int | None = None
        try:
            with file.write() as connection:
                number = _insert(connection, lease_ends)
                path = folder / f"{number}.lock"
                held = try_flock(path)
                if held is None:
                    message = f"{path} is locked by another process, though its number was never used"
                    raise RuntimeError(message)
        except BaseException:
            if held is not None:
                os.close(held)
            raise
        return cls(number, path, held)

    def exists(self, connection: sqlite3.Connection) -> bool:
        """Return whether nobody has taken this worker's messages away."""
        return connection.execute("SELECT 1 FROM worker WHERE id = ?", (self.id,)).fetchone() is not None

    def renew(self, connection: sqlite3.Connection, lease_ends: int) -> bool:
        """Move the lease; return False if the worker was declared dead before."""
        update = "UPDATE worker SET lease_ends = ? WHERE id = ?"
        return connection.execute(update, (lease_ends, self.id)).rowcount == 1

    def leave(self, connection: sqlite3.Connection) -> int:
        """Give all messages back, uncounted, and remove the row; return how many messages."""
        connection.execute("DELETE FROM worker WHERE id = ?", (self.id,))
        return give_back_all(connection, self.id, died=False)

    def drop_lock(self) -> None:
        """Remove the lock's file and give it up; idempotent."""
        if self._lock >= 0:
            self._path.unlink(missing_ok=True)
            self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: close the inherited descriptor, or the lock would outlive its owner."""
        descriptor, self._lock = self._lock, -1
        if descriptor >= 0:
            os.close(descriptor)


def _insert(connection: sqlite3.Connection, lease_ends: int) -> int:
    insert = "INSERT INTO worker (name, pid, lease_ends) VALUES (?, ?, ?) RETURNING id"
    return int(connection.execute(insert, (os.uname().nodename, os.getpid(), lease_ends)).fetchone()[0])


def sweep(file: SqliteFile, folder: Path, me: int, now: int) -> int:
    """Give the messages of dead workers back, each counted as a death; return how many.

    Dead is whose lock is free, or whose lease ended before ``now`` (monotonic µs): a stopped process, or one
    whose lock lives on in a child that was forked behind Python's back. Where the machine was started anew
    since, its clock says nothing of old leases, but all old locks are free.
    """
    with file.read() as connection:
        others = connection.execute("SELECT id, lease_ends FROM worker WHERE id <> ?", (me,)).fetchall()
    dead = [number for number, until in others if until < now or _lock_is_free(folder / f"{number}.lock")]
    if not dead:
        return 0
    with file.write() as connection:
        moved = {number: _bury(connection, number, now, folder) for number in dead}
    for number, count in moved.items():
        if count is not None:
            with suppress(FileNotFoundError):
                (folder / f"{number}.lock").unlink()
            log.warning("worker %d died or stalled; %d messages go to others", number, count)
    return sum(filter(None, moved.values()))


def _bury(connection: sqlite3.Connection, number: int, now: int, folder: Path) -> int | None:
    """Take a worker's messages if it still is dead; None if it renewed its lease, or left, meanwhile."""
    row = connection.execute("SELECT lease_ends FROM worker WHERE id = ?", (number,)).fetchone()
    if row is None or (row[0] >= now and not _lock_is_free(folder / f"{number}.lock")):
        return None
    connection.execute("DELETE FROM worker WHERE id = ?", (number,))
    return give_back_all(connection, number, died=True)


def _lock_is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        return lock(descriptor)
    finally:
        os.close(descriptor)
