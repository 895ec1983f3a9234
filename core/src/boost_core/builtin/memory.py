"""Broker ``memory``: queues in this process, for tests, scripts and work that may die with the process."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from boost_core.builtin.memory_queue import Entry, MemoryQueue
from boost_core.contracts.broker import Lost, SyncBroker, SyncSubscription
from boost_core.errors import Closed, PublishError, QueueGone, SettleError
from boost_core.native import Condition, RLock
from boost_core.types import Delivery, Depth, Frame, QueueSpec


class MemoryBroker(SyncBroker):
    """Keeps frames in the memory of this process; they are passed on as they are, without serialisation.

    One lock guards everything, taken once a batch. It is re-entrant, so that a signal handler may wake
    a subscription in the middle of a publish. Nothing is bounded but by the machine's memory.
    """

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.lock = RLock()
        self._queues: dict[str, MemoryQueue] = {}
        self.subscriptions: list[MemorySubscription] = []
        self._places = itertools.count()
        self._receipts = 0
        self._open = False
        self._follows_clock = False

    # --- life --------------------------------------------------------------------------------------

    def open(self) -> None:
        self._open = True
        subscribe = getattr(self.clock, "subscribe", None)  # a clock that is moved by hand says when
        if subscribe is not None and not self._follows_clock:
            self._follows_clock = True
            subscribe(self._look_again)

    def close(self) -> None:
        with self.lock:
            self._open = False
            for subscription in tuple(self.subscriptions):
                subscription.close()

    def after_fork(self) -> None:
        """Nothing to let go of: the parent's messages are the parent's, and the child's broker starts empty."""

    def _check_open(self) -> None:
        if not self._open:
            what = f"broker {self.spec.name!r}"
            raise Closed(what)

    def _look_again(self) -> None:
        with self.lock:
            for subscription in self.subscriptions:
                subscription.changed.notify_all()

    # --- publishing --------------------------------------------------------------------------------

    def declare(self, queues: Sequence[QueueSpec]) -> None:
        with self.lock:
            self._check_open()
            for queue in queues:
                self._queue(queue.name)

    def _queue(self, name: str) -> MemoryQueue:
        queue = self._queues.get(name)
        if queue is None:
            queue = self._queues[name] = MemoryQueue()
        return queue

    def publish(self, frames: Sequence[Frame], timeout: float) -> None:
        """Store all frames; queues that nobody declared are made. Never waits, so ``timeout`` is never reached."""
        misfits = self.misfits(frames)
        with self.lock:
            self._check_open()
            if misfits:
                frames = [frame for index, frame in enumerate(frames) if index not in misfits]
            self.put(frames)
        if misfits:
            raise PublishError(self.spec.name, next(iter(misfits.values())), tuple(misfits))

    def misfits(self, frames: Iterable[Frame]) -> dict[int, str]:
        """Return which frames are beyond the limits, and why. Raises ``UnsupportedCapability`` for one with a key."""
        largest, priorities = self.spec.limits.max_body, self.spec.limits.priorities
        found: dict[int, str] = {}
        for index, frame in enumerate(frames):
            if frame.key is not None:
                raise self.refuse("key_ordered", f"key={frame.key!r}")
            if len(frame.body) > largest:
                found[index] = f"a body of {len(frame.body):,} bytes is over the {largest:,} that it takes"
            elif not 0 <= frame.priority < priorities:
                found[index] = f"priority {frame.priority} is outside 0 to {priorities - 1}"
        return found

    def put(self, frames: Sequence[Frame]) -> None:
        """Add frames and wake whoever waits for their queues. The lock is held."""
        now = self.clock.monotonic()
        touched: set[str] = set()
        place = self._places.__next__
        name, priority = None, None
        for frame in frames:
            if frame.queue != name or frame.priority != priority:  # batches are mostly for one queue and priority
                name, priority = frame.queue, frame.priority
                queue = self._queue(name)
                append = queue.levels[priority].fresh.append
                touched.add(name)
            if frame.delay > 0 or frame.ttl is not None:
                queue.put_timed(place(), frame, now)
            else:
                append((place(), frame, math.inf))
        self.wake_waiting(touched)

    def wake_waiting(self, names: set[str]) -> None:
        """Wake the subscriptions that wait for one of these queues. The lock is held."""
        for subscription in self.subscriptions:
            if not subscription.waits_for.isdisjoint(names):
                subscription.changed.notify_all()

    # --- consuming ---------------------------------------------------------------------------------

    def subscribe(self, queues: Sequence[QueueSpec], credit: Mapping[str, int], lost: Lost) -> MemorySubscription:
        """Return a subscription. What it holds is never lost to others, so ``lost`` is never called."""
        with self.lock:
            self._check_open()
            subscription = MemorySubscription(self, [queue.name for queue in queues], credit)
            self.subscriptions.append(subscription)
            return subscription

    def take(self, name: str, count: int, now: float) -> list[Entry]:
        """Remove and return up to ``count`` ready messages of a queue. The lock is held.

        While others wait for the same queue, each gets its share of what is there. Raises ``QueueGone``.
        """
        queue = self._queues.get(name)
        if queue is None:
            raise QueueGone(self.spec.name, name)
        queue.promote(now, self._places)
        if len(self.subscriptions) > 1:
            waiting = sum(name in subscription.waits_for for subscription in self.subscriptions)
            count = min(count, math.ceil(queue.ready / max(1, waiting)))
        return queue.take(count, now)

    def give_back(self, entries: Iterable[Entry]) -> None:
        """Return fetched messages to where they stood, uncounted. The lock is held."""
        touched: set[str] = set()
        for entry in entries:
            name = entry[1].queue
            self._queue(name).put_back(entry)
            touched.add(name)
        self.wake_waiting(touched)

    def next_due(self, names: Iterable[str]) -> float:
        """Return when (monotonic) the next delayed message of these queues falls due, or inf. The lock is held."""
        queues = (self._queues[name] for name in names if name in self._queues)
        return min((queue.delayed[0][0] for queue in queues if queue.delayed), default=math.inf)

    def receipts(self, count: int) -> range:
        """Return fresh receipts, unique among all subscriptions of this broker. The lock is held."""
        first = self._receipts
        self._receipts += count
        return range(first, self._receipts)

    # --- looking -----------------------------------------------------------------------------------

    def depth(self, queue: str) -> Depth:
        with self.lock:
            found = self._current(queue)
            running = sum(subscription.running(queue) for subscription in self.subscriptions)
            return Depth(ready=found.ready, delayed=len(found.delayed), running=running)

    def purge(self, queue: str) -> int:
        with self.lock:
            found = self._current(queue)
            if queue in self._queues:
                self._queues[queue] = MemoryQueue()
            return found.ready + len(found.delayed)

    def peek(self, queue: str, n: int) -> Sequence[Frame]:
        with self.lock:
            ready = itertools.chain.from_iterable(self._current(queue).levels.descending)
            return [frame for _, frame, _ in itertools.islice(ready, n)]

    def queues(self) -> Sequence[str]:
        with self.lock:
            self._check_open()
            return sorted(self._queues)

    def _current(self, name: str) -> MemoryQueue:
        """Return a queue as it is now: due messages ready, expired ones gone. One that nobody made is empty."""
        self._check_open()
        queue, now = self._queues.get(name) or MemoryQueue(), self.clock.monotonic()
        queue.promote(now, self._places)
        queue.drop_expired(now)
        return queue


class MemorySubscription(SyncSubscription):
    """A claim on queues of a ``MemoryBroker``. All state is guarded by the broker's lock."""

    def __init__(self, broker: MemoryBroker, queues: Iterable[str], credit: Mapping[str, int]) -> None:
        self.changed = Condition(broker.lock)
        self.waits_for: frozenset[str] = frozenset()
        self._broker = broker
        self._held: dict[str, dict[int, Entry]] = {name: {} for name in queues}
        self._credit = dict(credit)
        self._woken = False
        self._closed = False

    def running(self, queue: str) -> int:
        """Return how many unsettled deliveries of a queue are held here. The lock is held."""
        return len(self._held.get(queue, ()))

    # --- fetching ----------------------------------------------------------------------------------

    def fetch(self, want: Mapping[str, int], timeout: float) -> Sequence[Delivery]:
        """Return what is wanted and there, waiting up to ``timeout`` seconds for the first.

        Raises ``ValueError`` for a queue that was not subscribed to, ``QueueGone`` for one that nobody made.
        """
        give_up = time.monotonic() + timeout
        with self.changed:
            self._check_open()
            self.waits_for = frozenset(self._known(want))
            deliveries: Sequence[Delivery] = ()
            while not self._closed:
                deliveries = self._take(want)
                if deliveries or self._woken or not self._wait(give_up):
                    break
            self._woken = False  # a wake of before is answered by any return
            self.waits_for = frozenset()
            return deliveries

    def _wait(self, give_up: float) -> bool:
        """Wait for a change, but not beyond the next due message; return False once the time is up.

        Messages fall due by the broker's clock, which may be a fake one that stands still; the caller's
        patience is real time in any case.
        """
        left = give_up - time.monotonic()
        if left > 0:
            due = self._broker.next_due(self.waits_for) - self._broker.clock.monotonic()
            self.changed.wait(max(0.0, min(left, due)))
        return left > 0

    def _take(self, want: Mapping[str, int]) -> list[Delivery]:
        now = self._broker.clock.monotonic()
        batches = [(name, self._broker.take(name, self._room(name, count), now)) for name, count in want.items()]
        batches = [(name, entries) for name, entries in batches if entries]
        if len(batches) == 1:
            return self._deliver(*batches[0])
        flat = [(name, entry) for name, entries in batches for entry in entries]
        flat.sort(key=lambda item: -item[1][1].priority)
        return [delivery for name, entry in flat for delivery in self._deliver(name, [entry])]

    def _room(self, name: str, count: int) -> int:
        credit = self._credit.get(name)
        return count if credit is None else max(0, min(count, credit - len(self._held[name])))

    def _deliver(self, name: str, entries: list[Entry]) -> list[Delivery]:
        receipts = self._broker.receipts(len(entries))
        self._held[name].update(zip(receipts, entries, strict=True))
        return [Delivery(name, entry[1].body, receipt) for receipt, entry in zip(receipts, entries, strict=True)]

    def _known(self, want: Mapping[str, int]) -> Mapping[str, int]:
        for name in want:
            if name not in self._held:
                message = f"queue {name!r} is not one of this subscription's: {', '.join(sorted(self._held))}"
                raise ValueError(message)
        return want

    def wake(self) -> None:
        with self.changed:
            self._woken = True  # kept for a fetch that is about to block
            self.changed.notify_all()

    # --- settling ----------------------------------------------------------------------------------

    def ack(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        with self.changed:
            self._check_open()
            held = self._held
            fenced = [it for it in deliveries if it.queue not in held or held[it.queue].pop(it.receipt, None) is None]
            self._credit_grew()
            return fenced

    def release(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        with self.changed:
            self._check_open()
            entries = [self._let_go(delivery) for delivery in deliveries]
            self._broker.give_back(entry for entry in entries if entry is not None)
            return [delivery for delivery, entry in zip(deliveries, entries, strict=True) if entry is None]

    def replace(self, pairs: Sequence[tuple[Delivery, Frame]]) -> Sequence[Delivery]:
        """End deliveries and store frames instead. Raises ``SettleError`` where a frame is beyond the limits."""
        misfits = self._broker.misfits(frame for _, frame in pairs)
        with self.changed:
            self._check_open()
            fitting = [pair for index, pair in enumerate(pairs) if index not in misfits]
            ours = [self._let_go(delivery) is not None for delivery, _ in fitting]
            self._broker.put([frame for (_, frame), mine in zip(fitting, ours, strict=True) if mine])
            self._credit_grew()
        if misfits:
            failed = [pairs[index][0] for index in misfits]
            raise SettleError(self._broker.spec.name, next(iter(misfits.values())), failed)
        return [delivery for (delivery, _), mine in zip(fitting, ours, strict=True) if not mine]

    def _let_go(self, delivery: Delivery) -> Entry | None:
        return self._held.get(delivery.queue, {}).pop(delivery.receipt, None)

    def _credit_grew(self) -> None:
        """Let a fetch look again that may have waited for credit."""
        if self.waits_for and self._credit:
            self.changed.notify_all()

    # --- the end -----------------------------------------------------------------------------------

    def close(self) -> None:
        with self.changed:
            if self._closed:
                return
            self._closed = True
            self._broker.subscriptions.remove(self)
            self._broker.give_back(entry for held in self._held.values() for entry in held.values())
            self._held.clear()
            self.changed.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            what = f"this subscription of broker {self._broker.spec.name!r}"
            raise Closed(what)
