"""The broker: one SQLite file, shared by the processes of one machine."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from boost_core.plugin import (
    BrokerUnavailable,
    Closed,
    Delivery,
    Depth,
    Frame,
    PublishError,
    QueueSpec,
    SyncBroker,
)
from boost_core.plugin.bell import Bell
from boost_core.plugin.native import Lock
from boost_core.plugin.sqlitefile import SqliteFile, project_file

from boost_broker_sqlite import inbox, inspection
from boost_broker_sqlite.plugin import SqliteOptions
from boost_broker_sqlite.queues import Queues
from boost_broker_sqlite.schema import APPLICATION_ID, LEVELS, MICROSECONDS, MIGRATIONS
from boost_broker_sqlite.subscription import Home, SqliteSubscription


class SqliteBroker(SyncBroker):
    """Queues in an SQLite file. Publishing threads take turns at its lock, like all other processes."""

    options: SqliteOptions

    def __init__(self, options: SqliteOptions) -> None:
        super().__init__(options)
        self.path = Path(options.path).expanduser().absolute() if options.path else project_file("queue.db")
        build_file = functools.partial(
            SqliteFile,
            path=self.path,
            application_id=APPLICATION_ID,
            migrations=MIGRATIONS,
            package="boost-broker-sqlite",
            fail=functools.partial(BrokerUnavailable, "sqlite"),
            durability=options.durability,
            timeout=options.timeout,
        )
        self._file = build_file()
        self._inspected = build_file()  # on a connection of its own: a long queue is counted beside those who write
        self._inspecting = Lock()
        self._bell = Bell(Path(f"{self.path}.bells"))
        self._queues = Queues(self._file)
        self._workers = Path(f"{self.path}.workers")
        self._subscriptions: list[SqliteSubscription] = []
        self._open = False

    def where(self) -> str:
        """Return the file's path."""
        return str(self.path)

    # --- life ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make or check the file. Raises ``BrokerUnavailable`` with the remedy."""
        if self._open:
            return
        self._file.open()
        try:
            self._bell.open()
            self._workers.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            self._file.close()
            raise BrokerUnavailable(self.spec.name, f"{error.filename} can't be made: {error.strerror}") from error
        self._open = True
        subscribe = getattr(self.clock, "subscribe", None)  # a clock that is moved by hand says when
        if subscribe is not None:
            subscribe(self._bell.ring)

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._open:
            self._open = False
            self._bell.close()
            with self._inspecting:
                self._inspected.close()
            self._file.close()

    def after_fork(self) -> None:
        """In a forked child: close the locks that say that the parent lives."""
        self._open = False
        for subscription in self._subscriptions:
            subscription.after_fork()
        self._inspected.after_fork()
        self._file.after_fork()

    # --- queues ----------------------------------------------------------------------------------

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Make queues exist, and record who declares them. Raises ``TaskConflict`` for another one's, with messages."""
        self._check_open()
        self._queues.declare(queues)

    # --- publishing and fetching --------------------------------------------------------------------

    def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        """Store all frames in one transaction. Raises ``PublishError``; frames over the limits fail alone."""
        self._check_open()
        misfits = self._misfits(frames)
        if misfits:
            frames = [frame for index, frame in enumerate(frames) if index not in misfits]
        if frames:
            try:
                self._store(frames, timeout)
            except BrokerUnavailable as error:
                failed = range(len(frames) + len(misfits))
                raise PublishError(self.spec.name, error.problem, failed=failed) from error
            self._bell.ring()
        if misfits:
            raise PublishError(self.spec.name, next(iter(misfits.values())), failed=tuple(misfits))

    def _store(self, frames: Sequence[Frame], timeout: float) -> None:
        self._queues.make({frame.queue for frame in frames}, timeout)
        ids, now = self._queues.ids, self.clock.time()
        if len(frames) == 1 and not frames[0].delay:
            inbox.store_one(self._file, frames[0], ids, now, timeout)
            return
        with self._file.write(timeout) as connection:
            inbox.store(connection, frames, ids, now)

    def _misfits(self, frames: Sequence[Frame]) -> dict[int, str]:
        """Return which frames can't be stored, and why. Raises ``UnsupportedCapability`` for one with a key."""
        largest = self.spec.limits.max_body
        found: dict[int, str] = {}
        for index, frame in enumerate(frames):
            if frame.key is not None:
                raise self.refuse("key_ordered", f"key={frame.key!r}")
            if len(frame.body) > largest or not 0 <= frame.priority < LEVELS:
                found[index] = inbox.misfit(frame, largest)
        return found

    def subscribe(
        self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Callable[[Sequence[Delivery]], None]
    ) -> SqliteSubscription:
        """Return a subscription, a worker of its own in the file."""
        self._check_open()
        home = Home(
            name=self.spec.name,
            file=self._file,
            bell=self._bell,
            workers=self._workers,
            queues=self._queues,
            clock=self.clock,
            lease=self.options.lease,
            misfits=self._misfits,
        )
        subscription = SqliteSubscription(home, [queue.name for queue in queues], credit, lost)
        self._subscriptions = [one for one in self._subscriptions if not one.closed]
        self._subscriptions.append(subscription)
        return subscription

    # --- inspection --------------------------------------------------------------------------------

    def depth(self, queue: str) -> Depth:
        """Return how many messages a queue has; a queue never heard of has none."""
        number = self._find(queue)
        if number is None:
            return Depth()
        with self._inspect() as connection:
            return inspection.depth(connection, number, self._now())

    def peek(self, queue: str, n: int) -> Sequence[Frame]:
        """Return up to ``n`` messages that can be fetched now, next first."""
        number = self._find(queue)
        if number is None:
            return []
        with self._inspect() as connection:
            return inspection.peek(connection, number, queue, n, self._now())

    def queues(self) -> Sequence[str]:
        """Return the names of all queues, sorted."""
        with self._inspect() as connection:
            return sorted(row[0] for row in connection.execute("SELECT name FROM queue"))

    def purge(self, queue: str) -> int:
        """Remove what waits and what is delayed; messages published meanwhile may go too. Return how many."""
        number = self._find(queue)
        removed = 0
        while number is not None:
            with self._file.write() as connection:
                chunk = inspection.purge(connection, number)
            removed += chunk
            if chunk < inspection.PURGE_CHUNK:
                break
        return removed

    def _inspect(self) -> AbstractContextManager[sqlite3.Connection]:
        with self._inspecting:
            self._check_open()
            self._inspected.open()
        return self._inspected.read()

    def _find(self, queue: str) -> int | None:
        self._check_open()
        return self._queues.find(queue)

    def _now(self) -> int:
        return int(self.clock.time() * MICROSECONDS)

    def _check_open(self) -> None:
        if not self._open:
            raise Closed(f"broker {self.spec.name!r}")
