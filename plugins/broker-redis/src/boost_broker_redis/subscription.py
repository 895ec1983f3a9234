"""One worker process's claim on its queues: fetching, settling, staying alive."""

from __future__ import annotations

import itertools
import logging
import math
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import attrs
from boost_core.plugin import (
    BrokerUnavailable,
    Closed,
    ConnectionLost,
    Delivery,
    Frame,
    QueueGone,
    SettleError,
    SyncSubscription,
    new_id,
)
from boost_core.plugin.native import Lock
from boost_core.plugin.replacing import replace_fitting
from redis import exceptions

from boost_broker_redis.address import Address, Broken
from boost_broker_redis.connections import Connections
from boost_broker_redis.keys import channel
from boost_broker_redis.listener import Listener
from boost_broker_redis.plugin import LOOK_SECONDS
from boost_broker_redis.record import MOST_AT_ONCE, asks, body_of, bounded, milliseconds, pack, priority_of
from boost_broker_redis.script import Call
from boost_broker_redis.troubles import Unfit, explain, has_left

log = logging.getLogger("boost.broker.redis")

_FETCH_ENDS_SECONDS: Final = 0.5
_GOODBYE_SECONDS: Final = 1.0
_FIRST_REFUSED_SECONDS: Final = 1.0
REFUSED_SECONDS: Final = 10.0
"""So long at most a worker leaves a queue alone that the server refuses, while it serves others."""


@attrs.frozen(kw_only=True)
class Home:
    """What a broker shares with its subscriptions.

    ``misfits`` says which frames can't be stored, and why; ``look_at`` looks at a server dialled again, and
    ``close_idle`` closes the broker's idle connections.
    """

    name: str
    address: Address
    layout: str
    stem: Callable[[str], str]
    misfits: Callable[[Sequence[Frame]], Mapping[int, str]]
    look_at: Callable[[Sequence[Any]], None]
    close_idle: Callable[[], None]
    lease: float
    timeout: float


class RedisSubscription(SyncSubscription):
    """A worker on the server, and what it holds.

    A receipt is what the layout knows a delivery by: place and claim, or entry and count. Nothing dies with a
    connection: what was claimed stays this worker's while its lease is renewed. Only claims whose answer was lost with
    it are nobody's, so reconnecting gives them back.
    """

    def __init__(self, home: Home, queues: Sequence[str], credit: Mapping[str, int]) -> None:
        self._home = home
        self._credit = dict(credit)
        self._stems = {queue: home.stem(queue) for queue in queues}
        self._held: dict[str, set[tuple[bytes, bytes]]] = {queue: set() for queue in queues}
        self._lease = milliseconds(home.lease)
        self._worker = f"{os.uname().nodename}.{os.getpid()}.{new_id()[:12]}:{self._lease}"  # for others go by it
        self._pause = min(LOOK_SECONDS, home.lease / 4)
        self._claim = 0  # the number of the last one
        self._connections = Connections(home.address, home.layout, home.timeout, home.look_at, native=True)
        self._listener = Listener(home.address, channel(self._worker), home.timeout)
        self._fetching = Lock()
        self._closing = Lock()
        self._next_sweep = 0.0
        self._left_alone: dict[str, tuple[float, float]] = {}  # until when, and for how long
        self._back: float | None = None  # since when there is a connection, if it was lost before
        self._woken = self._unsure = self._refused = self.closed = False
        try:
            self._listener.open()
        except Broken as error:
            self._listener.close()
            problem, fix = self._explained(error.cause)
            raise BrokerUnavailable(home.name, problem, fix) from error

    # --- fetching ----------------------------------------------------------------------------------

    def fetch(self, want: Mapping[str, int], timeout: float) -> Sequence[Delivery]:
        """Claim up to ``want`` in one round trip over all queues, higher priorities first.

        Raises ``QueueGone`` for a queue that wasn't subscribed, ``ConnectionLost``, ``Closed`` after ``close``.
        """
        deadline = time.monotonic() + timeout
        wanted = self._within_credit(want)
        with self._fetching:
            if self.closed:
                raise Closed(f"a subscription of broker {self._home.name!r}")
            try:
                return self._fetch(wanted, deadline)
            except Broken as error:
                self._unsure = True
                if self.closed:
                    return []
                raise self._lost_connection(error) from error

    def _fetch(self, wanted: Mapping[str, int], deadline: float) -> Sequence[Delivery]:
        # Who enters itself among those that wait at several queues may find something at one of them, and is then told
        # what somebody idle should be told of the others. So with several it looks once before it enters itself.
        single = len(wanted) <= 1
        waits = single
        while True:
            deliveries, soon = self._look(wanted, waits=waits)
            if deliveries:
                if waits and not single:
                    with suppress(Broken):  # the next call says so: what was claimed must be handed over
                        self._strike(wanted)
                return deliveries
            if not waits:
                waits = True
                continue
            remaining = deadline - time.monotonic()
            if self._woken or self.closed or remaining <= 0:
                self._woken = False
                self._strike(wanted)
                return []
            told = self._listener.wait(min(remaining, soon, self._pause * random.uniform(0.6, 1.0)))
            if not told:
                self._next_sweep = 0.0
            waits = single or not told

    def _look(self, wanted: Mapping[str, int], *, waits: bool) -> tuple[list[Delivery], float]:
        """Return what can be had, and how many seconds until something may be had without being told."""
        self._claim += 1
        sweeps = time.monotonic() >= self._next_sweep
        if sweeps:
            self._next_sweep = time.monotonic() + self._pause * random.uniform(0.6, 1.0)
        stands = "" if self._back is None else milliseconds(time.monotonic() - self._back)
        tail = (self._claim, self._lease, int(waits), int(sweeps), stands)
        asked = [queue for queue in wanted if self._left_alone.get(queue, (0.0, 0.0))[0] <= time.monotonic()]
        calls = [Call("claim", [self._stems[queue]], (self._worker, wanted[queue], *tail)) for queue in asked]
        replies = self._connections.run(calls) if calls else []
        deliveries: list[Delivery] = []
        soon = math.inf
        refused: dict[str, BrokerUnavailable] = {}
        for queue, reply in zip(asked, replies, strict=True):
            if isinstance(reply, exceptions.RedisError):
                refused[queue] = self._refusal(reply, queue)
                continue
            self._left_alone.pop(queue, None)
            if reply is not None:
                deliveries += self._claimed(queue, reply)
                soon = soon if reply[4] < 0 else min(soon, reply[4] / 1000)
        if refused and not deliveries:  # else it comes again with the next claim
            self._leave_alone(refused, alone=len(refused) == len(asked))
        if len(wanted) > 1:
            deliveries.sort(key=lambda delivery: -priority_of(delivery.receipt[0]))
        return deliveries, soon

    def _leave_alone(self, refused: Mapping[str, BrokerUnavailable], *, alone: bool) -> None:
        """Go on without queues that the server refuses, each time longer. Raises where nothing else answers."""
        for queue, refusal in refused.items():
            if alone or isinstance(refusal, ConnectionLost):
                raise refusal
            _, before = self._left_alone.get(queue, (0.0, 0.0))
            pause = min(max(2 * before, _FIRST_REFUSED_SECONDS), REFUSED_SECONDS)
            self._left_alone[queue] = time.monotonic() + pause, pause
            log.warning("%s\n  Its other queues go on.", refusal)

    def _claimed(self, queue: str, reply: Sequence[Any]) -> list[Delivery]:
        places, tokens, records, deaths, _, foreign, buried = reply
        if foreign:
            log.warning("queue %s: %d entries of other programs had no message and were removed", queue, foreign)
        for worker, count in zip(buried[::2], buried[1::2], strict=True):
            text = "worker %s died or stalled; %d messages of queue %s go to others"
            log.warning(text, worker.decode(errors="replace"), count, queue)
            self._next_sweep = 0.0  # it may have held more than was wanted
        if not places:
            return []
        receipts = list(zip(places, tokens or itertools.repeat(b"%d" % self._claim), strict=False))
        self._held[queue].update(receipts)
        if deaths:
            return [
                Delivery(queue, body_of(record), receipt, int(died or 0))
                for receipt, record, died in zip(receipts, records, deaths, strict=True)
            ]
        return [Delivery(queue, body_of(record), receipt) for receipt, record in zip(receipts, records, strict=True)]

    def _within_credit(self, want: Mapping[str, int]) -> dict[str, int]:
        wanted = {}
        for queue, count in want.items():
            if queue not in self._stems:
                raise QueueGone(self._home.name, queue)
            credit = self._credit.get(queue)
            room = count if credit is None else min(count, credit - len(self._held[queue]))
            if room > 0:
                wanted[queue] = min(room, MOST_AT_ONCE)
        return wanted

    def _strike(self, queues: Iterable[str]) -> None:
        """Be told no more of what comes in: somebody else is to be."""
        commands = [("ZREM", f"{self._stems[queue]}waiters", self._worker) for queue in queues]
        if commands:
            self._connections.call(commands)

    def wake(self) -> None:
        """Let a blocked ``fetch`` return."""
        self._woken = True
        self._listener.wake()

    # --- settling ----------------------------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Delete what is done."""
        return self._settle("ack", deliveries)

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Give back, each to its old place in line."""
        return self._settle("release", deliveries)

    def replace(self, pairs: Sequence[tuple[Delivery, Frame]]) -> Sequence[Delivery]:
        """Delete the deliveries and store the frames of those that were still ours, a queue's in one step.

        Raises ``SettleError``, ``ConnectionLost``; frames that can't be stored fail alone.
        """
        misfits = self._home.misfits([frame for _, frame in pairs])
        return replace_fitting(self._home.name, pairs, misfits, self._replace)

    def _replace(self, pairs: Sequence[tuple[Delivery, Frame]]) -> Sequence[Delivery]:
        frames = {id(delivery): frame for delivery, frame in pairs}
        return self._settle("replace", [delivery for delivery, _ in pairs], frames)

    def _settle(
        self, operation: str, deliveries: Sequence[Delivery], frames: Mapping[int, Frame] | None = None
    ) -> Sequence[Delivery]:
        """Run an operation on deliveries; return those that aren't ours. Raises ``SettleError``, ``ConnectionLost``."""
        parts = list(_parts(deliveries, frames))
        calls = [self._call(operation, part, frames) for part in parts]
        return self._fenced(parts, self._ran(calls))

    def _call(self, operation: str, part: Sequence[Delivery], frames: Mapping[int, Frame] | None) -> Call:
        keys = [self._stems[part[0].queue]]
        arguments: list[Any] = [self._worker]
        if frames is None:
            for delivery in part:
                arguments += delivery.receipt
            return Call(operation, keys, arguments)
        numbers = {keys[0]: 1}
        for delivery in part:
            frame = frames[id(delivery)]
            target = self._home.stem(frame.queue)
            number = numbers.setdefault(target, len(numbers) + 1)
            arguments += (*delivery.receipt, number, pack(frame), *asks(frame))
        return Call(operation, list(numbers), arguments)

    def _fenced(self, parts: Sequence[Sequence[Delivery]], replies: Sequence[Any]) -> list[Delivery]:
        fenced: list[Delivery] = []
        failed: list[Delivery] = []
        problem = ""
        for part, reply in zip(parts, replies, strict=True):
            if isinstance(reply, exceptions.RedisError):
                problem = self._refusal(reply, part[0].queue).problem
                failed += part
            else:
                fenced += [part[number] for number in reply]
                self._held[part[0].queue].difference_update([delivery.receipt for delivery in part])
        if failed:
            raise SettleError(self._home.name, problem, failed=failed)
        return fenced

    # --- staying alive -----------------------------------------------------------------------------

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Renew the lease where anything is held: of the worker, or of each message, as the layout has it."""
        self._home.close_idle()
        self._connections.close_idle()
        parts = list(_parts(deliveries, None))
        asked = {part[0].queue for part in parts}
        bare = [queue for queue, held in self._held.items() if held and queue not in asked]
        renew = (self._worker, self._lease)
        calls = [Call("extend", [self._stems[part[0].queue]], (*renew, *_receipts(part))) for part in parts]
        calls += [Call("extend", [self._stems[queue]], renew) for queue in bare]
        gone: list[Delivery] = []
        for part, reply in zip([*parts, *([] for _ in bare)], self._ran(calls), strict=True):
            if isinstance(reply, exceptions.RedisError):
                raise self._refusal(reply, part[0].queue if part else bare[0])
            gone += [part[number] for number in reply]
        for delivery in gone:
            self._held[delivery.queue].discard(delivery.receipt)
        return gone

    def reconnect(self) -> None:
        """Dial again, and give back what was claimed in a call whose answer was lost."""
        try:
            self._listener.open()
            self._connections.redial()
        except Broken as error:
            lost = self._lost_connection(error)
            if isinstance(error.cause, Unfit) and not self._refused:
                self._refused = True  # said once, for it is dialled again and again
                log.warning("%s", lost)
            raise lost from error
        self._refused = False
        if self._unsure:
            calls = [
                Call("recover", [stem], (self._worker, self._claim, *(place for place, _ in tuple(self._held[queue]))))
                for queue, stem in self._stems.items()
            ]
            for queue, reply in zip(self._stems, self._ran(calls), strict=True):
                if isinstance(reply, exceptions.RedisError):
                    raise self._refusal(reply, queue)
            self._unsure = False
        self._back = time.monotonic()

    def _ran(self, calls: Sequence[Call]) -> Sequence[Any]:
        if not calls:
            return []
        if self.closed:
            raise Closed(f"a subscription of broker {self._home.name!r}")
        try:
            return self._connections.run(calls)
        except Broken as error:
            raise self._lost_connection(error) from error

    # --- the end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Give back what is unsettled, uncounted; a blocked ``fetch`` returns. Takes 2 s where the server hangs."""
        with self._closing:
            if self.closed:
                return
            self.closed = True
        self._listener.wake()
        idle = self._fetching.acquire(timeout=_FETCH_ENDS_SECONDS)
        if not idle:
            self._connections.cut()
            self._listener.cut()
            idle = self._fetching.acquire(timeout=_FETCH_ENDS_SECONDS)
        seconds = min(self._home.timeout, _GOODBYE_SECONDS)
        try:
            self._connections.run([Call("leave", [stem], (self._worker,)) for stem in self._stems.values()], seconds)
        except Broken as error:
            text = "%s: what this worker held goes to others when its lease ends: the server %s"
            log.warning(text, self._home.address.masked, explain(error.cause, seconds)[0])
        finally:
            self._connections.close()
            self._listener.close()
            if idle:
                self._fetching.release()

    def after_fork(self) -> None:
        """In a forked child: close the parent's sockets, so that they end with it."""
        self.closed = True
        self._connections.after_fork()
        self._listener.after_fork()

    # --- what can go wrong -------------------------------------------------------------------------

    def _explained(self, error: Exception) -> tuple[str, str]:
        problem, fix = explain(error, self._home.timeout)
        return f"the server at {self._home.address.masked} {problem}", fix

    def _lost_connection(self, error: Broken) -> ConnectionLost:
        return ConnectionLost(self._home.name, *self._explained(error.cause))

    def _refusal(self, error: exceptions.RedisError, queue: str) -> BrokerUnavailable:
        problem, fix = self._explained(error)
        kind = ConnectionLost if has_left(error) else BrokerUnavailable
        return kind(self._home.name, f"{problem} (queue {queue!r})", fix)


def _receipts(deliveries: Sequence[Delivery]) -> list[Any]:
    return [part for delivery in deliveries for part in delivery.receipt]


def _parts(deliveries: Sequence[Delivery], frames: Mapping[int, Frame] | None) -> Iterator[list[Delivery]]:
    """Yield what goes into one run of a script: of one queue, bounded in number, and in bytes where any are stored."""
    lines: dict[str, list[Delivery]] = defaultdict(list)
    for delivery in deliveries:
        lines[delivery.queue].append(delivery)
    for line in lines.values():
        if frames is None:
            yield from (line[start : start + MOST_AT_ONCE] for start in range(0, len(line), MOST_AT_ONCE))
        else:
            sizes = [len(frames[id(delivery)].body) for delivery in line]
            yield from (line[start:end] for start, end in bounded(sizes))
