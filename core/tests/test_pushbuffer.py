"""The buffer between a client's I/O thread and core's FETCH thread."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
from boost_core.plugin import ConnectionLost, Delivery, QueueGone
from boost_core.plugin.native import Event, SimpleQueue, Thread
from boost_core.plugin.pushbuffer import PushBuffer

FAR = 60.0
"""Longer than a test may take: who gets something sooner was woken."""


def deliveries(queue: str, *bodies: bytes) -> list[Delivery]:
    """Return deliveries of one queue."""
    return [Delivery(queue, body, None) for body in bodies]


def bodies(taken: list[Delivery]) -> list[bytes]:
    """Return what the deliveries carry."""
    return [bytes(delivery.body) for delivery in taken]


class Taker:
    """Takes in a thread of its own, as FETCH does."""

    def __init__(self, take: Callable[[], Any]) -> None:
        self._entered = Event()
        self._ends: SimpleQueue[Any] = SimpleQueue()
        self._take = take
        Thread(self._run, name="taker").start()
        assert self._entered.wait(10)

    def _run(self) -> None:
        self._entered.set()
        try:
            self._ends.put(self._take())
        except Exception as error:
            self._ends.put(error)

    def end(self) -> Any:
        """Return what it returned or raised."""
        return self._ends.get(timeout=10)


def test_take_returns_what_is_wanted_and_no_more() -> None:
    """Each queue yields as many as wanted, oldest first; what isn't wanted stays for later, in its order."""
    buffer = PushBuffer()
    buffer.put([*deliveries("a", b"1", b"2", b"3"), *deliveries("b", b"4", b"5"), *deliveries("c", b"6")])

    assert bodies(buffer.take({"b": 10, "a": 2}, FAR)) == [b"4", b"5", b"1", b"2"]
    assert bodies(buffer.take({"a": 1, "b": 1}, FAR)) == [b"3"]
    assert bodies(buffer.take({"c": 0}, 0)) == []
    assert bodies(buffer.take({"c": 1}, FAR)) == [b"6"]


def test_take_ends_with_its_timeout() -> None:
    """Where nothing wanted is there, take returns nothing after its timeout; what others want doesn't end it."""
    buffer = PushBuffer()
    buffer.put(deliveries("other", b"1"))

    assert buffer.take({"queue": 1}, 0) == []
    assert buffer.take({"queue": 1}, -1) == []
    assert buffer.take({"queue": 1}, 0.02) == []
    assert buffer.take({}, 0.02) == []


def test_a_blocked_take_gets_what_arrives() -> None:
    """Put ends a blocked take at once if it brings what is wanted, and only then."""
    buffer = PushBuffer()
    taker = Taker(lambda: buffer.take({"queue": 5}, FAR))

    buffer.put(deliveries("other", b"0"))
    buffer.put(deliveries("queue", b"1", b"2"))

    assert bodies(taker.end()) == [b"1", b"2"]
    assert buffer.waiting() == 1


def test_wake_ends_a_blocked_take() -> None:
    """A blocked take returns empty-handed when woken."""
    buffer = PushBuffer()
    taker = Taker(lambda: buffer.take({"queue": 1}, FAR))

    buffer.wake()

    assert taker.end() == []


def test_wake_ends_the_next_take_once() -> None:
    """A wake between two takes isn't lost: the next one returns at once; the one after waits again."""
    buffer = PushBuffer()
    buffer.wake()
    buffer.wake()

    assert buffer.take({"queue": 1}, FAR) == []

    taker = Taker(lambda: buffer.take({"queue": 1}, FAR))
    buffer.put(deliveries("queue", b"1"))
    assert bodies(taker.end()) == [b"1"]


def test_a_take_that_finds_something_has_heard_the_wake() -> None:
    """A woken take returns what is there, and the wake is spent with it."""
    buffer = PushBuffer()
    buffer.put(deliveries("queue", b"1"))
    buffer.wake()

    assert bodies(buffer.take({"queue": 1}, FAR)) == [b"1"]

    taker = Taker(lambda: buffer.take({"queue": 1}, FAR))
    buffer.put(deliveries("queue", b"2"))
    assert bodies(taker.end()) == [b"2"]


def test_a_blocked_take_raises_what_fails() -> None:
    """A broken connection ends a blocked take with its error."""
    buffer = PushBuffer()
    error = ConnectionLost("rabbitmq", "the connection broke", "")
    taker = Taker(lambda: buffer.take({"queue": 1}, FAR))

    buffer.fail(error)

    assert taker.end() is error


def test_each_error_is_raised_once_before_anything_else() -> None:
    """Errors come first, in their order and one a call; what waits is still there after them."""
    buffer = PushBuffer()
    gone = [QueueGone("rabbitmq", "a"), QueueGone("rabbitmq", "b")]
    buffer.put(deliveries("c", b"1"))
    for error in gone:
        buffer.fail(error)

    for error in gone:
        with pytest.raises(QueueGone) as caught:
            buffer.take({"c": 1}, FAR)
        assert caught.value is error
    assert bodies(buffer.take({"c": 1}, FAR)) == [b"1"]


def test_close_ends_takes() -> None:
    """From close on take returns nothing, at once: a blocked one, later ones, whatever waits, whatever failed."""
    buffer = PushBuffer()
    taker = Taker(lambda: buffer.take({"queue": 1}, FAR))

    buffer.close()
    assert taker.end() == []

    buffer.close()
    buffer.put(deliveries("queue", b"1"))
    buffer.fail(ConnectionLost("rabbitmq", "the connection broke", ""))
    assert buffer.take({"queue": 1}, FAR) == []
    assert bodies(buffer.drop()) == [b"1"]


def test_drop_removes_what_is_asked_for() -> None:
    """Drop returns what it removed, by queue, by a condition, by both or all; the rest keeps its order."""
    buffer = PushBuffer()
    buffer.put([*deliveries("a", b"1", b"2", b"3", b"4"), *deliveries("b", b"5", b"6"), *deliveries("c", b"7")])

    assert bodies(buffer.drop(lambda delivery: delivery.body in (b"2", b"5"), queue="a")) == [b"2"]
    assert bodies(buffer.drop(lambda delivery: delivery.body in (b"3", b"5"))) == [b"3", b"5"]
    assert bodies(buffer.drop(queue="c")) == [b"7"]
    assert buffer.drop(queue="unknown") == []
    assert bodies(buffer.take({"a": 9, "b": 9}, FAR)) == [b"1", b"4", b"6"]
    assert buffer.drop() == []


def test_waiting_counts_what_was_not_taken() -> None:
    """Waiting counts one queue or all of them, and goes down with take and drop."""
    buffer = PushBuffer()
    buffer.put([*deliveries("a", b"1", b"2", b"3"), *deliveries("b", b"4")])
    assert (buffer.waiting(), buffer.waiting("a"), buffer.waiting("b"), buffer.waiting("c")) == (4, 3, 1, 0)

    buffer.take({"a": 1}, FAR)
    buffer.drop(queue="b")

    assert (buffer.waiting(), buffer.waiting("a"), buffer.waiting("b")) == (2, 2, 0)


def test_nothing_is_lost_or_doubled_between_threads() -> None:
    """Four I/O threads put, one takes in changing portions and is woken all the time: each comes once, in order."""
    buffer = PushBuffer()
    each = 2_000

    def put(queue: str) -> None:
        sizes, numbers = random.Random(queue), iter(range(each))
        while batch := [Delivery(queue, b"", number) for number in islice(numbers, sizes.randint(1, 30))]:
            buffer.put(batch)
            buffer.wake()

    queues = ["a", "b", "c", "d"]
    for queue in queues:
        Thread(put, (queue,), name=f"put-{queue}").start()
    wants = random.Random("wants")
    taken: dict[str, list[int]] = {queue: [] for queue in queues}
    while sum(map(len, taken.values())) < 4 * each:
        for delivery in buffer.take({queue: wants.randint(1, 40) for queue in queues}, FAR):
            taken[delivery.queue].append(delivery.receipt)

    assert taken == {queue: list(range(each)) for queue in queues}
    assert buffer.waiting() == 0
