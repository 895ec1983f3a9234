"""All that a connection was sent and that isn't settled: in the buffer, waiting for its time, or with core."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import amqp
from boost_core.plugin import Clock, ConnectionLost, Delivery, Depth
from boost_core.plugin.native import Lock
from boost_core.plugin.pushbuffer import PushBuffer

from boost_broker_rabbitmq.ladder import STEPS
from boost_broker_rabbitmq.line import Line, Receipt
from boost_broker_rabbitmq.link import Link
from boost_broker_rabbitmq.passage import Passage
from boost_broker_rabbitmq.session import Answer
from boost_broker_rabbitmq.stamp import Stamp
from boost_broker_rabbitmq.waitlist import Waitlist

log = logging.getLogger("boost.rabbitmq")

NACKS_FREE_FROM: Final = (4, 3)
"""The first version that doesn't count what is given back among the returns of a message."""

REPOST_SECONDS: Final = 2.0
CANCEL_SECONDS: Final = 0.01
"""How long a server that answers takes for a consumer's end at most, so that a thousand of them have their time."""

RETRY_SECONDS: Final = 2.0
"""After how long messages are sent on again that couldn't be; as long as a queue of the ladder is young."""

Repost = Callable[[Sequence[tuple[str, Stamp, bytes | memoryview]], float], Answer]
"""Publishes messages again by ``until`` (monotonic): each one's queue (as on the server), stamp and body."""


class Custody:
    """Thread-safe. Who settles a message takes it off the books and posts that to the link under one lock.

    So what the link's thread sends is in the order of the books, and "all up to this one" means the same to both ends.
    """

    def __init__(self, link: Link, buffer: PushBuffer, clock: Clock, repost: Repost, ordered: frozenset[str]) -> None:
        self.lock = Lock()
        self.lines: dict[str, Line] = {}
        self._link = link
        self._buffer = buffer
        self._clock = clock
        self._repost = repost
        self._ordered = ordered
        self._waitlist = Waitlist()
        self._passage = Passage(self._pass_on)
        self._burst: list[tuple[Line, Delivery, int]] = []  # the link's thread's own, as are
        self._passed: set[Line] = set()  # those that brought what is early
        self._repost_after = 0.0

    # --- the link's thread -----------------------------------------------------------------------------

    def arrived(self, line: Line, delivery: Delivery, consumer: int) -> None:
        """Take note of a delivery; ``take_in`` follows."""
        self._burst.append((line, delivery, consumer))

    def settle_down(self) -> None:
        """Take in what arrived together, and let more through where that was early: nobody has work by it."""
        self.take_in()
        while self._passed:
            line = self._passed.pop()
            waiting = self._buffer.waiting(line.queue)
            with self.lock:
                grows = line.alive and line.window.open and line.window.lacks(waiting) > 0
                line.window.renewing |= grows
            if grows:
                self._renew(line)

    def take_in(self) -> None:
        """Put what arrived together into the buffer; give back what came after its consumer was shut off."""
        if not self._burst:
            return
        burst, self._burst = self._burst, []
        now = self._clock.time()
        fresh: list[Delivery] = []
        early: list[Delivery] = []
        late: list[Delivery] = []
        with self.lock:
            for line, delivery, consumer in burst:
                if line.alive:
                    is_early = delivery.receipt.stamp.is_early(now)
                    line.window.take(delivery.receipt.tag, consumer, is_early=is_early)
                    (late if not line.window.open else early if is_early else fresh).append(delivery)
        if fresh:
            self._buffer.put(fresh)
        if early:
            self._let_wait(early, now)
            self._passed.update(delivery.receipt.line for delivery in early)
        if late:
            self.give_back(late)

    def end(self, line: Line) -> list[Delivery]:
        """Forget a line whose messages the server has taken back; return those that core holds."""
        with self.lock:
            line.alive = False
            lost = list(line.taken.values())
            line.taken.clear()
            if self.lines.get(line.queue) is line:
                del self.lines[line.queue]
                self._waitlist.drop(line.queue)
        self._buffer.drop(lambda delivery: delivery.receipt.line is line, line.queue)
        return lost

    def end_all(self) -> list[Delivery]:
        """Forget all lines; return what core holds."""
        return [delivery for line in list(self.lines.values()) for delivery in self.end(line)]

    def close(self, line: Line) -> None:
        """Close the channel of a line that was ended; the server has back what isn't settled."""
        self._link.post(line.close)

    # --- handing out ---------------------------------------------------------------------------------

    def due(self, want: Mapping[str, int]) -> list[Delivery]:
        """Return what has waited for its time, up to ``want[queue]`` a queue."""
        with self.lock:
            found = self._waitlist.due(want, self._clock.time())
        return self.admit(found) if found else []

    def seconds_to_due(self, want: Mapping[str, int]) -> float | None:
        """Return how long until something more is due; None where nothing waits."""
        with self.lock:
            due = self._waitlist.next_due(want)
        return None if due is None else due - self._clock.time()

    def admit(self, taken: Sequence[Delivery]) -> list[Delivery]:
        """Return those out of the buffer that core gets now; let the others wait, or end, where their time is over."""
        now = self._clock.time()
        good: list[Delivery] = []
        expired: list[Delivery] = []
        early: list[Delivery] = []
        for delivery in taken:
            stamp = delivery.receipt.stamp
            if stamp.expires is not None and stamp.expires <= now:
                expired.append(delivery)
            else:
                (early if stamp.is_early(now) else good).append(delivery)
        if expired:
            self.settle(expired, done=True)
        if early:
            self._let_wait(early, now)
        with self.lock:
            return self._hand_out(good)

    def _hand_out(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Count deliveries as core's. The lock is held."""
        now = time.monotonic()
        found: list[Delivery] = []
        for delivery in deliveries:
            receipt: Receipt = delivery.receipt
            if receipt.line.alive:
                receipt.taken = now
                receipt.line.taken[receipt.tag] = delivery
                receipt.line.window.wanted -= 1
                found.append(delivery)
                if receipt.stamp.deaths or receipt.stamp.returns:
                    delivery.deaths = self._deaths(receipt)
        return found

    def _deaths(self, receipt: Receipt) -> int:
        """Return how many owners of a message have died for sure.

        Before 4.3 the server counts each return. The first one may have been a give-back, later ones were not: what
        came back before is published again instead (see ``give_back``), unless that would cost its queue's order.
        """
        known = receipt.stamp.deaths + receipt.stamp.returns
        if self._nacks_are_free:
            return known
        return 0 if receipt.line.queue in self._ordered else max(0, known - 1)

    @property
    def _nacks_are_free(self) -> bool:
        return self._link.connection.version >= NACKS_FREE_FROM

    def _let_wait(self, early: Sequence[Delivery], now: float) -> None:
        """Hold what is due soon; have the rest sent on by the delay ladder, unless that failed a short while ago."""
        latest = now + STEPS[0] if time.monotonic() >= self._repost_after else math.inf
        distant = [delivery for delivery in early if delivery.receipt.stamp.due >= latest]
        if distant:
            self._passage.add(distant)
        self._hold([delivery for delivery in early if delivery.receipt.stamp.due < latest], now)

    def _hold(self, early: Sequence[Delivery], now: float) -> None:
        with self.lock:
            for delivery in early:
                if delivery.receipt.line.alive:
                    self._waitlist.add(min(delivery.receipt.stamp.due, now + RETRY_SECONDS), delivery)
        if early:
            self._buffer.wake()  # a blocked fetch must look when they are due

    def _pass_on(self, distant: Sequence[Delivery]) -> None:
        """Send messages on by the delay ladder; hold those for which that fails. The passage's thread."""
        try:
            sent = self._republish(distant)
        except Exception:  # it would end the thread, and those to come would wait for ever
            log.exception("%d early messages couldn't be sent on; they are held meanwhile", len(distant))
            sent = []
        self.settle(sent, done=True)
        gone = set(map(id, sent))
        left = [delivery for delivery in distant if id(delivery) not in gone]
        if left:  # there is an alarm, or the ladder is young
            self._repost_after = time.monotonic() + RETRY_SECONDS
            self._hold(left, self._clock.time())

    # --- settling ------------------------------------------------------------------------------------

    def reclaim(self, deliveries: Sequence[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
        """Take deliveries back from core; return those that are ours, and those that no longer are."""
        ours: list[Delivery] = []
        fenced: list[Delivery] = []
        with self.lock:
            for delivery in deliveries:
                receipt: Receipt = delivery.receipt
                known = receipt.line.taken.pop(receipt.tag, None)
                (fenced if known is None else ours).append(delivery)
            if ours:
                receipt = ours[0].receipt
                receipt.line.window.measure(time.monotonic() - receipt.taken)
        return ours, fenced

    def settle(self, deliveries: Sequence[Delivery], *, done: bool) -> None:
        """Acknowledge messages, or have the server queue them again. Those of dead lines need neither."""
        by_line: dict[Line, set[int]] = defaultdict(set)
        for delivery in deliveries:
            by_line[delivery.receipt.line].add(delivery.receipt.tag)
        with self.lock:
            for line, tags in by_line.items():
                if line.alive:
                    upto, above = line.window.settle(tags)
                    self._link.post(_settling(line, upto, above, done=done))

    def give_back(self, deliveries: Sequence[Delivery], seconds: float = REPOST_SECONDS) -> None:
        """Let others have messages at once, uncounted.

        The first time the server does it, and the message keeps its place. Before 4.3 it counts that like a death; so
        a message that was returned before is published again with what is known of its deaths, at the queue's end.
        """
        again = [] if self._nacks_are_free else [one for one in deliveries if self._returned_before(one.receipt)]
        sent = self._republish(again, seconds) if again else []
        gone = set(map(id, sent))
        self.settle(sent, done=True)
        self.settle([delivery for delivery in deliveries if id(delivery) not in gone], done=False)

    def _returned_before(self, receipt: Receipt) -> bool:
        counted = receipt.stamp.deaths + receipt.stamp.returns
        return counted > 0 and receipt.line.queue not in self._ordered

    def _republish(self, deliveries: Sequence[Delivery], seconds: float = REPOST_SECONDS) -> list[Delivery]:
        """Publish messages again; return those that are surely stored. Those of dead lines come back anyway."""
        ours = [one for one in deliveries if one.receipt.line.alive]
        again = [(one.receipt.line.name, one.receipt.stamp.again(), one.body) for one in ours]
        answer = self._repost(again, time.monotonic() + seconds) if again else Answer()
        missing = answer.failed.keys() | answer.unsure.keys()
        return [delivery for index, delivery in enumerate(ours) if index not in missing]

    def tune(self, line: Line, want: int, *, patient: bool) -> bool:
        """Let a new consumer take over where the server may send too little; where ``patient``, only if far too little.

        Return whether it is still too little.
        """
        waiting = self._buffer.waiting(line.queue)
        with self.lock:
            window = line.window
            window.wanted = want
            generous = window.is_generous(waiting)
        if generous:
            self._trim(line, want)
            waiting = want
        with self.lock:
            lacking = window.lacks(waiting) > 0
            if not lacking or (patient and not window.must_grow(waiting)):
                return lacking
            window.open = window.renewing = True
            self._link.post(lambda: self._renew(line))
            return False

    def _renew(self, line: Line) -> None:
        """End a line's consumer, and begin another one that may be sent what is wanted by then. The link's thread.

        Not where acknowledgements have made room meanwhile: then the server may be sending.
        """
        with self.lock:
            if not line.window.full:
                line.window.renewing = False
                return
            closed = line.window.close()
        line.cancel(closed)
        self.take_in()  # all that the last consumer was sent is here
        waiting = self._buffer.waiting(line.queue)
        with self.lock:
            if not line.window.open:  # it was shut off meanwhile
                line.window.renewing = False
                return
            number, size = line.window.renew(waiting, len(line.taken))
        line.consume(number, size)

    # --- giving up -----------------------------------------------------------------------------------

    def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give back what core held. What else the queues are to bring is for the next fetch to say."""
        self._stop({delivery.receipt.line for delivery in deliveries})
        self.give_back(deliveries)

    def shut(self, queue: str) -> None:
        """Have the server send no more of a queue, and give back what core didn't take."""
        line = self.lines.get(queue)
        if line is not None:
            self._stop([line])
            with self.lock:
                back = self._waitlist.drop(queue)
            self.give_back([*self._buffer.drop(queue=queue), *back])  # what is on its way up the ladder goes on

    def _trim(self, line: Line, keep: int) -> None:
        """Shut a line off that was sent too much; give back all but ``keep``."""
        self._stop([line])
        places = itertools.count()
        self.give_back(self._buffer.drop(lambda _: next(places) >= keep, line.queue))

    def clear(self, seconds: float) -> None:
        """Shut everything off and give everything back, also what core holds.

        A server that doesn't answer within ``seconds`` has it all back by the connection's end.
        """
        lines = list(self.lines.values())
        if not self._stop(lines, seconds + CANCEL_SECONDS * len(lines)):
            return
        with self.lock:
            back = [*self._waitlist.drop(), *self._passage.drop()]
            for line in self.lines.values():
                back.extend(line.taken.values())
                line.taken.clear()
        self._passage.wait(REPOST_SECONDS)  # what it sends would else come back as well
        self.give_back([*self._buffer.drop(), *back], seconds)

    def _stop(self, lines: Collection[Line], seconds: float = math.inf) -> bool:
        """Have the server send no more over some lines; return when it doesn't, False where it can't be told.

        What is given back before might come to us again, cross with the end of its consumer, and so be returned once
        more, which before 4.3 counts like a death.
        """

        def cancel() -> None:
            with self.lock:
                consumers = [(line, line.window.close()) for line in lines]
            for line, number in consumers:
                line.cancel(number)
            self.take_in()
            with self.lock:
                for line in lines:
                    line.window.open = False

        with contextlib.suppress(OSError, ConnectionLost, amqp.AMQPError):
            self._link.ask(cancel, seconds)
            return True
        return False

    def remove(self, queue: str) -> int:
        """End what core didn't take of a queue, as done; return how many messages that were."""
        with self.lock:
            removed = [*self._waitlist.drop(queue), *self._passage.drop(queue)]
        removed.extend(self._buffer.drop(queue=queue))
        self.settle(removed, done=True)
        return len(removed)

    def depth(self, line: Line) -> Depth:
        """Return what is here of a queue. The link's thread."""
        self.take_in()
        waiting = self._buffer.waiting(line.queue)
        with self.lock:
            early = self._waitlist.count(line.queue) + self._passage.count(line.queue)
            running = max(0, len(line.window.held) - waiting - early)
        return Depth(ready=waiting, delayed=early, running=running)


def _settling(line: Line, upto: int, above: Sequence[int], *, done: bool) -> Callable[[], None]:
    return lambda: line.settle(upto, above, done=done)
