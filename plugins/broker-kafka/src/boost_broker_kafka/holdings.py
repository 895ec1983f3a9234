"""What a worker holds: its partitions, what it read of them ahead, and what it was handed and hasn't settled."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import attrs
from boost_core.plugin import Delivery
from boost_core.plugin.native import Condition
from boost_core.plugin.offsetledger import OffsetLedger
from boost_core.plugin.pushbuffer import PushBuffer

from boost_broker_kafka.cluster import Partition
from boost_broker_kafka.ladder import Rung

AHEAD: Final = 1024
"""So many messages of a queue are read ahead; reading goes on below half of that."""

BYTES_AHEAD: Final = 8 * 1024 * 1024
"""Nor more than so many bytes."""

OVERFULL: Final = 4
"""More is read of a full queue while others have room, since a consumer can't choose: up to so many times as much."""


class _Gauge:
    """Which queues are full: from ``times`` the amounts on, until half of that is left."""

    def __init__(self, times: int) -> None:
        self._count, self._bytes = times * AHEAD, times * BYTES_AHEAD
        self.full: frozenset[str] = frozenset()

    def read(self, amounts: Mapping[str, tuple[int, int]]) -> frozenset[str]:
        """Return the queues that are full, of these (how many messages, how many bytes)."""
        self.full = frozenset(
            queue
            for queue, (count, size) in amounts.items()
            for part in [2 if queue in self.full else 1]
            if count * part >= self._count or size * part >= self._bytes
        )
        return self.full


@attrs.define(eq=False)
class Share:
    """A partition that is ours.

    ``log`` tells the topic from a former one of its name. ``next`` is the offset to be read next, ``committed`` and
    ``metadata`` what was committed last; what lies below ``trimmed`` was deleted from here, what lies below ``floor``
    was purged, and ``mark`` is the first offset that the client knew of when last looked.
    ``out`` is what core was handed and hasn't settled. A delay topic's has a ``rung``, and ``moving`` counts what is on
    its way from there.
    """

    partition: Partition
    queue: str
    log: str
    generation: int
    next: int
    mark: int
    committed: int
    metadata: str
    rung: Rung | None = None
    trimmed: int = 0
    floor: int = 0
    moving: int = 0
    paused: bool = False
    out: dict[int, Delivery] = attrs.field(factory=dict)

    @property
    def busy(self) -> bool:
        """Whether something of it is in somebody's hands."""
        return bool(self.out or self.moving)


class Holdings:
    """Counts, hands out and takes back. The reader's, FETCH's and SETTLE's threads; each method is one step for all."""

    def __init__(self, queues: Sequence[str], credit: Mapping[str, int]) -> None:
        self.ledger = OffsetLedger()
        self.buffer = PushBuffer()
        self.shares: dict[Partition, Share] = {}
        self.settled = Condition()  # its lock guards all that follows
        self._credit = dict(credit)
        self._out: Counter[str] = Counter()
        self._bytes = dict.fromkeys(queues, 0)
        self._enough, self._too_much = _Gauge(1), _Gauge(OVERFULL)

    # --- reader ------------------------------------------------------------------------------------

    def stock(self, fresh: Sequence[Delivery]) -> None:
        """Take in what was read; ``take`` hands it out."""
        with self.settled:
            for delivery in fresh:
                self._bytes[delivery.queue] += len(delivery.body)
            self.buffer.put(fresh)

    def full(self) -> frozenset[str]:
        """Return the queues of which enough was read ahead."""
        return self._enough.read(self._amounts())

    def overfull(self) -> frozenset[str]:
        """Return the queues of which far more than enough was read ahead."""
        return self._too_much.read(self._amounts())

    def await_room(self, seconds: float) -> None:
        """Return when something was taken, or after so many seconds."""
        with self.settled:
            self.settled.wait(seconds)

    def _amounts(self) -> dict[str, tuple[int, int]]:
        return {queue: (self.buffer.waiting(queue), size) for queue, size in self._bytes.items()}

    def unread(self, shares: Sequence[Share]) -> None:
        """Forget what was read ahead of these partitions."""
        partitions = {share.partition for share in shares}
        self._drop(lambda delivery: delivery.receipt[0] in partitions)

    def purged(self, share: Share, start: int) -> None:
        """Take note that what lies below ``start`` was purged: what was read ahead of it goes too."""
        share.floor = max(share.floor, start)
        for delivery in self._drop(lambda one: one.receipt[0] == share.partition and one.receipt[1] < start):
            self.ledger.done(*delivery.receipt)

    def give_up(self, shares: Sequence[Share]) -> list[Delivery]:
        """Let go of partitions: acks of theirs are refused from now on. Return what was handed out of them."""
        self.unread(shares)
        with self.settled:
            gone = [delivery for share in shares for delivery in share.out.values()]
            for share in shares:
                self.ledger.revoke(share.partition)
                self.shares.pop(share.partition, None)
                share.out = {}
            self._out.subtract(delivery.queue for delivery in gone)
        return gone

    def _drop(self, matches: Callable[[Delivery], bool]) -> list[Delivery]:
        with self.settled:
            dropped = self.buffer.drop(matches)
            for delivery in dropped:
                self._bytes[delivery.queue] -= len(delivery.body)
        return dropped

    # --- FETCH -------------------------------------------------------------------------------------

    def take(self, want: Mapping[str, int], timeout: float) -> list[Delivery]:
        """Hand out up to ``want[queue]`` deliveries a queue, as far as its credit goes."""
        taken = self.buffer.take({queue: self._room(queue, count) for queue, count in want.items()}, timeout)
        with self.settled:
            handed_out = [delivery for delivery in taken if self._hand_out(delivery)]
            self.settled.notify_all()
        return handed_out

    def _hand_out(self, delivery: Delivery) -> bool:
        """Note a delivery as handed out; False if it was taken away a moment ago."""
        self._bytes[delivery.queue] -= len(delivery.body)
        partition, offset, generation = delivery.receipt
        share = self.shares.get(partition)
        if share is None or share.generation != generation:
            return False
        if offset < share.floor:  # purged while it was on its way into the buffer
            self.ledger.done(*delivery.receipt)
            return False
        share.out[offset] = delivery
        self._out[delivery.queue] += 1
        return True

    def _room(self, queue: str, count: int) -> int:
        credit = self._credit.get(queue)
        return count if credit is None else max(0, min(count, credit - self._out[queue]))

    @property
    def busy(self) -> bool:
        """Whether anything is handed out."""
        return any(self._out.values())

    def running(self, queue: str) -> int:
        """Return how many deliveries of a queue are handed out."""
        return self._out[queue]

    # --- SETTLE ------------------------------------------------------------------------------------

    def done(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Note deliveries as done; return those that aren't ours any more."""
        fenced = []
        with self.settled:
            for delivery in deliveries:
                if self._close(delivery):
                    self.ledger.done(*delivery.receipt)
                else:
                    fenced.append(delivery)
            self.settled.notify_all()
        return fenced

    def give_back(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        """Have deliveries handed out again, before what was read after them; return those that aren't ours any more."""
        fenced = []
        again: defaultdict[str, list[Delivery]] = defaultdict(list)
        with self.settled:
            for delivery in deliveries:
                if self._close(delivery):
                    again[delivery.queue].append(Delivery(delivery.queue, delivery.body, delivery.receipt))
                else:
                    fenced.append(delivery)
            for queue, fresh in again.items():
                fresh.sort(key=lambda one: one.receipt[1])
                later = self.buffer.drop(queue=queue)
                self.stock(fresh)
                self.buffer.put(later)
        return fenced

    def _close(self, delivery: Delivery) -> bool:
        """Take a delivery off its partition; False if it isn't ours any more."""
        partition, offset, _ = delivery.receipt
        share = self.shares.get(partition)
        if share is None or share.out.get(offset) is not delivery:
            return False
        del share.out[offset]
        self._out[delivery.queue] -= 1
        return True
