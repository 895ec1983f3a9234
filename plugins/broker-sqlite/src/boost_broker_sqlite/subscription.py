"""One worker process's claim on its queues: fetching, settling, staying alive."""

from __future__ import annotations

import logging
import math
import random
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
from boost_core.plugin import (
    BrokerUnavailable,
    Clock,
    Closed,
    Delivery,
    Frame,
    Lost,
    QueueGone,
    SettleError,
    SyncSubscription,
)
from boost_core.plugin.bell import Bell
from boost_core.plugin.native import Lock
from boost_core.plugin.replacing import replace_fitting
from boost_core.plugin.sqlitefile import SqliteFile

from boost_broker_sqlite import claim, inbox
from boost_broker_sqlite.queues import Queues
from boost_broker_sqlite.schema import MICROSECONDS
from boost_broker_sqlite.worker import Worker, sweep

log = logging.getLogger("boost.broker.sqlite")

SWEEP_SECONDS: Final = 0.5
"""Dead workers are looked for this often, or every quarter of the lease if that is less."""

_FETCH_ENDS_SECONDS: Final = 1.0

Settle = Callable[[sqlite3.Connection, Sequence[Delivery]], list[Delivery]]
"""Does its work on deliveries in a transaction; returns those that were no longer ours."""


@attrs.frozen(kw_only=True)
class Home:
    """What a broker shares with its subscriptions. ``misfits`` says which frames can't be stored, and why."""

    name: str
    file: SqliteFile
    bell: Bell
    workers: Path
    queues: Queues
    clock: Clock
    lease: float
    misfits: Callable[[Sequence[Frame]], Mapping[int, str]]


class SqliteSubscription(SyncSubscription):
    """A worker row in the file, its lock, and what it holds.

    A receipt is (place, worker id). Whoever finds this worker dead removes its row and gives its
    messages away in one transaction; so while the row is there all that was claimed under its id is ours.
    """

    def __init__(self, home: Home, queues: Sequence[str], credit: Mapping[str, int], lost: Lost) -> None:
        self._home = home
        self._lost = lost
        self._credit = dict(credit)
        self._numbers = {name: home.queues.find(name) for name in queues}
        self._held: dict[int, Delivery] = {}
        self._fetching = Lock()
        self._renewing = Lock()
        self._woken = False
        self.closed = False
        self._next_sweep = 0.0
        try:
            self._seat = home.bell.seat()
        except OSError as error:
            raise BrokerUnavailable(home.name, f"no seat to wait at: {error}") from error
        try:
            self._worker = Worker.enlist(home.file, home.workers, self._lease_ends())
        except BaseException:
            self._seat.close()
            raise

    # --- fetching ----------------------------------------------------------------------------------

    def fetch(self, want: Mapping[str, int], timeout: float) -> Sequence[Delivery]:
        """Claim up to ``want`` in one transaction over all queues, higher priorities first.

        Raises ``QueueGone`` for a queue that was never declared, ``Closed`` after ``close``.
        """
        deadline = time.monotonic() + timeout
        with self._fetching:
            try:
                return self._fetch(want, deadline)
            finally:
                self._seat.unmark()

    def _fetch(self, want: Mapping[str, int], deadline: float) -> Sequence[Delivery]:
        if self.closed:
            raise Closed(f"a subscription of broker {self._home.name!r}")
        while True:
            self._sweep_if_due()
            deliveries, next_due = self._claim(want)
            if deliveries:
                return deliveries
            remaining = deadline - time.monotonic()
            if self._woken or self.closed or remaining <= 0:
                self._woken = False
                return []
            self._seat.wait(min(remaining, next_due, max(0.0, self._next_sweep - time.monotonic())))

    def wake(self) -> None:
        """Let a blocked ``fetch`` return."""
        self._woken = True
        self._seat.wake()

    def _claim(self, want: Mapping[str, int]) -> tuple[list[Delivery], float]:
        """Return what can be had, and how many seconds until the next delayed message falls due.

        With nothing there the seat is marked under the lock: a message committed later finds the mark.
        """
        wanted = self._within_credit(want)
        worker, now = self._worker, self._home.clock.time()
        with self._home.file.write() as connection:
            if self.closed:
                return [], 0.0
            alive = worker.exists(connection)
            rows = claim.take(connection, wanted, worker.id, int(now * MICROSECONDS)) if alive else []
            due = None
            if alive and not rows:
                self._seat.mark()
                due = claim.next_due(connection)
        if not alive:
            self._report(self._begin_anew(worker))
            return [], 0.0
        deliveries = [Delivery(name, body, (place, worker.id), deaths) for place, name, deaths, body in rows]
        self._held.update((delivery.receipt[0], delivery) for delivery in deliveries)
        return deliveries, math.inf if due is None else max(0.0, due / MICROSECONDS - now)

    def _within_credit(self, want: Mapping[str, int]) -> list[tuple[str, int, int]]:
        """Return (queue, its id, how many) for what is wanted, less what is unsettled already."""
        wanted = []
        for name, count in want.items():
            number = self._numbers.get(name)
            if number is None:
                raise QueueGone(self._home.name, name)
            credit = self._credit.get(name)
            room = count
            if credit is not None and len(self._held) + count > credit:  # else there is room whosever they are
                held = sum(delivery.queue == name for delivery in list(self._held.values()))
                room = min(count, credit - held)
            if room > 0:
                wanted.append((name, number, room))
        return wanted

    # --- settling ----------------------------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Delete what is done. Raises ``SettleError`` where the file can't be written."""
        return self._settle(deliveries, claim.drop)

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Give back, each to its old place in line."""
        fenced = self._settle(deliveries, claim.give_back)
        self._home.bell.ring()
        return fenced

    def replace(self, pairs: Sequence[tuple[Delivery, Frame]]) -> Sequence[Delivery]:
        """Delete the deliveries and store the frames of those that were still ours, in one transaction.

        Raises ``SettleError``; frames that can't be stored fail alone.
        """
        misfits = self._home.misfits([frame for _, frame in pairs])
        return replace_fitting(self._home.name, pairs, misfits, self._swap)

    def _swap(self, pairs: Sequence[tuple[Delivery, Frame]]) -> Sequence[Delivery]:
        home = self._home
        home.queues.make({frame.queue for _, frame in pairs})

        def swap(connection: sqlite3.Connection, ours: Sequence[Delivery]) -> list[Delivery]:
            fenced = claim.drop(connection, ours)
            kept = {id(delivery) for delivery in ours} - {id(delivery) for delivery in fenced}
            frames = [frame for delivery, frame in pairs if id(delivery) in kept]
            if frames:
                inbox.store(connection, frames, home.queues.ids, home.clock.time())
            return fenced

        fenced = self._settle([delivery for delivery, _ in pairs], swap)
        home.bell.ring()
        return fenced

    def _settle(self, deliveries: Sequence[Delivery], work: Settle) -> Sequence[Delivery]:
        """Do the work on what this subscription holds; return that and all else that isn't ours.

        A place is used again once its message is gone, so a delivery settled before must not reach the file.
        """
        held = self._held
        ours = [delivery for delivery in deliveries if held.get(delivery.receipt[0]) is delivery]
        stale = [] if len(ours) == len(deliveries) else [one for one in deliveries if one not in ours]
        if not ours:
            return stale
        try:
            with self._home.file.write() as connection:
                stale += work(connection, ours)
        except BrokerUnavailable as error:
            raise SettleError(self._home.name, error.problem, failed=ours) from error
        for delivery in ours:
            if held.get(delivery.receipt[0]) is delivery:  # else the place is a newer delivery's by now
                del held[delivery.receipt[0]]
        return stale

    # --- staying alive -----------------------------------------------------------------------------

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Renew the worker's lease, which is one small write however much is held."""
        worker = self._worker
        with self._home.file.write() as connection:
            alive = worker.renew(connection, self._lease_ends())
        if not alive:
            gone = self._begin_anew(worker)
            asked = set(map(id, deliveries))
            self._report([delivery for delivery in gone if id(delivery) not in asked])
        return [delivery for delivery in deliveries if delivery.receipt[1] != self._worker.id]

    def _begin_anew(self, worker: Worker) -> list[Delivery]:
        """Enlist again after others declared ``worker`` dead; return what it held and they have now."""
        with self._renewing:
            if self._worker is not worker or self.closed:
                return []
            log.warning("worker %d was taken for dead by others; it goes on under a new number", worker.id)
            self._worker = Worker.enlist(self._home.file, self._home.workers, self._lease_ends())
            worker.drop_lock()
            gone = [delivery for delivery in list(self._held.values()) if delivery.receipt[1] == worker.id]
            for delivery in gone:
                self._held.pop(delivery.receipt[0], None)
            return gone

    def _report(self, gone: Sequence[Delivery]) -> None:
        if gone:
            self._lost(gone)

    def _sweep_if_due(self) -> None:
        if time.monotonic() < self._next_sweep:
            return
        home = self._home
        interval = min(SWEEP_SECONDS, home.lease / 4)
        self._next_sweep = time.monotonic() + interval * random.uniform(0.8, 1.2)
        if sweep(home.file, home.workers, self._worker.id, int(home.clock.monotonic() * MICROSECONDS)):
            home.bell.ring()

    def _lease_ends(self) -> int:
        return int((self._home.clock.monotonic() + self._home.lease) * MICROSECONDS)

    # --- the end -----------------------------------------------------------------------------------

    def reconnect(self) -> None:
        """Do nothing: a file has no connection to lose, and the next call opens it again where need be."""

    def close(self) -> None:
        """Give back what is unsettled, uncounted; a blocked ``fetch`` returns."""
        with self._renewing:
            if self.closed:
                return
            self.closed = True
        self._seat.wake()
        idle = self._fetching.acquire(timeout=_FETCH_ENDS_SECONDS)
        try:
            with self._home.file.write() as connection:
                given = self._worker.leave(connection)
        finally:
            self._worker.drop_lock()
            self._seat.close()
            self._held.clear()
            if idle:
                self._fetching.release()
        if given:
            self._home.bell.ring()

    def after_fork(self) -> None:
        """In a forked child: close the descriptors that say that the parent lives."""
        self.closed = True
        self._worker.after_fork()
        self._seat.after_fork()
