"""An SQLite file that many processes write: one lock, one connection a process, errors that name the remedy.

Every write transaction and every checkpoint runs under an exclusive ``flock`` on ``<file>.lock``. That
bounds the wait of each writer, where SQLite's own busy handler lets some starve, and it keeps
checkpoints and writers apart, which SQLite before 3.51.3 needs (https://sqlite.org/wal.html, "the
WAL-reset bug"). All threads share one connection: they would queue for the lock anyway, a
connection that nobody else writes through keeps its page cache, and one connection can be closed
before a fork. A child that inherits an open one inherits lock states that are not its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from boost_core.errors import Closed
from boost_core.forks import on_fork
from boost_core.native import RLock, sleep
from boost_core.plugin import locks
from boost_core.plugin.place import NETWORK_FILESYSTEMS, filesystem_of, identity_of, is_writable, project_file
from boost_core.plugin.sqliteerrors import DAMAGED, FIX_GONE, FIX_LOCKED, FIX_PATH, explain, primary_name

__all__ = ["DURABILITIES", "NETWORK_FILESYSTEMS", "SqliteFile", "filesystem_of", "project_file"]

DURABILITIES: Final = {"process": "NORMAL", "power": "FULL"}
"""``process`` survives ``kill -9`` of anything, ``power`` a power cut as well; and SQLite's word for each."""

OLDEST: Final = (3, 35, 0)
CHECKPOINT_PAGES: Final = 1000
"""The commit that makes the log so long copies it back into the file; a commit has the lock."""
LONGEST_LOG: Final = 16 * 1024 * 1024
"""To so many bytes a longer log is cut, once it is copied back."""

_FORK_SECONDS: Final = 1.0
_BUSY_SECONDS: Final = 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.00005, 0.002


@attrs.define(eq=False, kw_only=True)
class SqliteFile:
    """One database file, opened by any number of processes.

    ``migrations`` are SQL scripts; the schema version is their number, and a script once released never
    changes. ``fail(problem, fix)`` makes the error that is raised for whatever goes wrong; ``package`` is
    the distribution to upgrade. ``timeout`` (seconds) bounds a wait for the lock. Thread-safe.
    """

    path: Path
    application_id: int
    migrations: Sequence[str]
    package: str
    fail: Callable[[str, str | None], Exception]
    durability: str = "process"
    timeout: float = 10.0
    _mutex: Any = attrs.field(factory=RLock, init=False)
    _connection: sqlite3.Connection | None = attrs.field(default=None, init=False)
    _lock: int = attrs.field(default=-1, init=False)
    _paused: bool = attrs.field(default=False, init=False)
    _identity: tuple[int, int] = attrs.field(default=(0, 0), init=False)

    # --- life ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the file if need be, bring its schema up to date, and keep it open; idempotent.

        The file gets mode 0600, its folder, if made, 0700. Raises what ``fail`` makes: for a network
        file system, a file that can't be written, is no database, is another program's, or is of a newer schema.
        """
        if self._lock >= 0:
            return
        self._check_platform()
        try:
            self._make()
            self._identity = identity_of(self.path)
            self._lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self.fail(f"{self.path} can't be used: {error.strerror}", FIX_PATH) from error
        on_fork(self)
        try:
            with self.locked():
                pass
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection and the lock; idempotent. Waits for other threads to end their transactions."""
        if self._lock < 0:
            return
        deadline = time.monotonic() + self.timeout
        self._enter(deadline)
        try:
            self._disconnect(deadline)
        finally:
            try:
                os.close(self._lock)
            finally:
                self._lock = -1
                self._mutex.release()

    def after_fork(self) -> None:
        """In a forked child: let go of the lock's descriptor, and of the connection without its destructor."""
        if self._connection is not None:
            _FORGOTTEN.append(self._connection)
            self._connection = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self._mutex = RLock()  # whoever held it is not in this process

    # --- use -------------------------------------------------------------------------------------

    def locked(self, timeout: float | None = None) -> Locked:
        """Hold the lock over all processes, without a transaction: each statement commits by itself."""
        return Locked(self, self._deadline(timeout))

    def write(self, timeout: float | None = None) -> Writing:
        """Hold the lock over one write transaction: committed at the end, rolled back on any exception."""
        return Writing(self, self._deadline(timeout))

    def write_one(self, statement: str, values: Any, timeout: float | None = None) -> None:
        """Execute one statement that is a transaction by itself: cheaper than ``write`` around it."""
        held = self.locked(timeout)
        with held as connection:
            self._insist(connection, statement, held.deadline, values)

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Read one state of the file, beside the writers of other processes."""
        deadline = time.monotonic() + self.timeout
        self._enter(deadline)
        try:
            connection = self._connection or self._reconnect(deadline)
            try:
                connection.execute("BEGIN")
                self._insist(connection, "SELECT 1 FROM sqlite_master", deadline)
                yield connection
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise self._explained(error) from error
        finally:
            self._mutex.release()

    # --- the lock ----------------------------------------------------------------------------------

    def _acquire(self, deadline: float) -> sqlite3.Connection:
        """Take the lock over all threads and processes; return the connection."""
        self._enter(deadline)
        try:
            self._wait_for_lock(deadline)
            if identity_of(self.path) != self._identity:  # what is written to a file without a name is lost
                raise self.fail(f"{self.path} was deleted or replaced while it was in use", FIX_GONE)
            return self._connection or self._connect(deadline)
        except BaseException as error:
            self._release()
            if isinstance(error, sqlite3.Error):
                raise self._explained(error) from error
            raise

    def _release(self) -> None:
        try:
            locks.unlock(self._lock)
        finally:
            self._mutex.release()

    def _enter(self, deadline: float) -> None:
        """Take the mutex. It knows its owner, because Ctrl-C may be raised after it was taken and before that is told.

        For the same reason nothing may be called between this and the ``try`` whose end gives it back.
        """
        if self._mutex._is_owned():
            raise self.fail(f"{self.path} is in use by what a signal handler of this thread interrupted", None)
        try:
            if not self._mutex.acquire(timeout=max(0.0, deadline - time.monotonic())):
                raise self.fail(f"{self.path} was in use by other threads of this process for too long", FIX_LOCKED)
            if self._lock < 0:
                raise Closed(str(self.path))
        except BaseException:
            if self._mutex._is_owned():
                self._mutex.release()
            raise

    def _wait_for_lock(self, deadline: float) -> None:
        if not self._lock_by(deadline):
            raise self.fail(f"{self.path} is kept locked by another process", FIX_LOCKED)

    def _lock_by(self, deadline: float) -> bool:
        pause = _FIRST_PAUSE
        while not locks.lock(self._lock):
            if time.monotonic() >= deadline:
                return False
            sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        return True

    def _insist(self, connection: sqlite3.Connection, statement: str, deadline: float, values: Any = ()) -> None:
        """Execute the first statement of a transaction; programs that don't know our lock are waited for."""
        while True:
            try:
                connection.execute(statement, values).fetchone()
            except sqlite3.OperationalError as error:
                if primary_name(error) != "SQLITE_BUSY" or time.monotonic() >= deadline:
                    raise
            else:
                return

    # --- the connection ----------------------------------------------------------------------------

    def _reconnect(self, deadline: float) -> sqlite3.Connection:
        self._wait_for_lock(deadline)
        try:
            return self._connect(deadline)
        finally:
            locks.unlock(self._lock)

    def _connect(self, deadline: float) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            version = self._check_owner(connection)
            mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            if mode != "wal":
                raise self.fail(f"{self.path} can't be written ahead: its file system lacks shared memory", FIX_PATH)
            connection.execute(f"PRAGMA synchronous={DURABILITIES[self.durability]}")
            connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit={LONGEST_LOG}")
            connection.execute("PRAGMA secure_delete=FAST")  # some builds write zeros over each page that gets free
            if version < len(self.migrations):
                self._migrate(connection, version, deadline)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _check_owner(self, connection: sqlite3.Connection) -> int:
        """Return the schema's version; refuse a file that isn't ours before anything in it is changed."""
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if owner != self.application_id and (owner or version or tables):
            raise self.fail(f"{self.path} is the database of another program", FIX_PATH)
        if version > len(self.migrations):
            raise self.fail(
                f"{self.path} has schema version {version}; "
                f"this {self.package} knows versions up to {len(self.migrations)}",
                f"Upgrade the package: pip install --upgrade {self.package}",
            )
        return version

    def _migrate(self, connection: sqlite3.Connection, version: int, deadline: float) -> None:
        try:
            self._insist(connection, "BEGIN IMMEDIATE", deadline)
            for script in self.migrations[version:]:
                for statement in filter(str.strip, script.split(";")):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id={self.application_id}")
            connection.execute(f"PRAGMA user_version={len(self.migrations)}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _disconnect(self, deadline: float) -> None:
        """Close the connection, under the lock: the last one to go checkpoints."""
        connection = self._connection
        if connection is None:
            return
        self._wait_for_lock(deadline)
        try:
            self._connection = None
            connection.close()
        finally:
            locks.unlock(self._lock)

    # --- what can go wrong -------------------------------------------------------------------------

    def _check_platform(self) -> None:
        if self.durability not in DURABILITIES:
            raise self.fail(f"durability {self.durability!r} is unknown", f"One of: {', '.join(DURABILITIES)}")
        if not locks.HAVE_FLOCK:
            raise self.fail("SQLite files are shared by file locks, which this system's Python lacks", None)
        if sqlite3.threadsafety == 0:
            raise self.fail("this Python's SQLite is built without thread safety", "Use another build of Python.")
        if sqlite3.sqlite_version_info < OLDEST:
            needed = ".".join(map(str, OLDEST[:2]))
            raise self.fail(f"this Python has SQLite {sqlite3.sqlite_version}; {needed} is needed", "Upgrade SQLite.")

    def _make(self) -> None:
        folder = self.path.parent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kind = filesystem_of(folder)
        if kind in NETWORK_FILESYSTEMS:
            raise self.fail(
                f"{self.path} is on a network file system ({kind}), whose locks can't be relied on", FIX_PATH
            )
        if not is_writable(folder):
            raise self.fail(f"{self.path} can't be used: its folder is read-only", FIX_PATH)
        if self.path.exists() and not is_writable(self.path):
            raise self.fail(f"{self.path} is read-only", FIX_PATH)
        with contextlib.suppress(FileExistsError):  # to close a file that is there would end SQLite's locks on it here
            os.close(os.open(self.path.resolve(), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _explained(self, error: sqlite3.Error) -> Exception:
        if primary_name(error) in DAMAGED and self._connection is not None:
            self._connection.close()
            self._connection = None
        problem, fix = explain(error)
        return self.fail(f"{self.path} {problem}", fix)

    # --- forks -------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Close the connection, so that a child inherits none; other threads wait until the fork is done."""
        deadline = time.monotonic() + _FORK_SECONDS
        self._paused = not self._mutex._is_owned() and self._mutex.acquire(timeout=_FORK_SECONDS)
        if self._paused and self._connection is not None and self._lock_by(deadline):
            self._connection.close()
            self._connection = None
            locks.unlock(self._lock)

    def after_fork_in_parent(self) -> None:
        """Let the other threads go on; the next use connects again."""
        if self._paused:
            self._paused = False
            self._mutex.release()


@attrs.define(eq=False)
class Locked:
    """A ``with`` block under a file's lock, until ``deadline`` (monotonic) to get it; gives the connection."""

    # Classes and not generators: this is the way of every push, and they take half the time.

    _file: SqliteFile
    deadline: float

    def __enter__(self) -> sqlite3.Connection:
        return self._file._acquire(self.deadline)

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self._file._release()
        if isinstance(error, sqlite3.Error):
            raise self._file._explained(error) from error


@attrs.define(eq=False)
class Writing(Locked):
    """A ``with`` block that is a write transaction."""

    _connection: sqlite3.Connection | None = attrs.field(default=None, init=False)

    def __enter__(self) -> sqlite3.Connection:
        connection = self._connection = self._file._acquire(self.deadline)
        try:
            self._file._insist(connection, "BEGIN IMMEDIATE", self.deadline)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return connection

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self._end(error)
        except BaseException as failed:
            Locked.__exit__(self, type(failed), failed, failed.__traceback__)
            raise
        Locked.__exit__(self, kind, error, traceback)

    def _end(self, error: BaseException | None) -> None:
        assert self._connection is not None
        try:
            if error is None:
                self._connection.execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


_FORGOTTEN: Final[list[Any]] = []
