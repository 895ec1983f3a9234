"""Broker ``memory``: order, sharing, delays, settling, waking and the end, through the broker contract."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from boost_core.builtin.memory import MemoryBroker, MemorySubscription
from boost_core.builtin.plugin import MEMORY
from boost_core.contracts.specs import BrokerSpec, Limits
from boost_core.errors import Closed, PublishError, QueueGone, SettleError, UnsupportedCapability
from boost_core.testing import FakeClock
from boost_core.types import Delivery, Depth, Frame, QueueSpec

PATIENCE = 10.0
"""Seconds after which a blocked call counts as hanging."""


def build_broker(clock: FakeClock | None = None, spec: BrokerSpec = MEMORY) -> MemoryBroker:
    """Return an open broker with the queues ``a`` and ``b``."""
    broker = MemoryBroker(None)
    broker.spec, broker.clock = spec, clock or FakeClock()
    broker.open()
    broker.declare([QueueSpec(name="a"), QueueSpec(name="b")])
    return broker


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that stands."""
    return FakeClock()


@pytest.fixture
def broker(clock: FakeClock) -> MemoryBroker:
    """Return an open broker on that clock."""
    return build_broker(clock)


@pytest.fixture
def sub(broker: MemoryBroker) -> MemorySubscription:
    """Return a subscription to both queues, without a bound of credit."""
    return subscribe(broker)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Return threads for calls that block."""
    with ThreadPoolExecutor(8) as threads:
        yield threads


def subscribe(broker: MemoryBroker, **credit: int) -> MemorySubscription:
    """Return a subscription to both queues."""
    return broker.subscribe([QueueSpec(name="a"), QueueSpec(name="b")], credit, lambda _lost: None)


def put(broker: MemoryBroker, *ids: str, queue: str = "a", **fields: Any) -> None:
    """Publish frames whose bodies are their ids."""
    broker.publish([Frame(id_, queue, id_.encode(), **fields) for id_ in ids], 1.0)


def get(sub: MemorySubscription, want: int = 100, queue: str = "a") -> list[Delivery]:
    """Return what is ready."""
    return list(sub.fetch({queue: want}, 0.0))


def ids(deliveries: Iterable[Delivery]) -> str:
    """Return the ids of deliveries as one word."""
    return "".join(bytes(delivery.body).decode() for delivery in deliveries)


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; fail when it doesn't in time."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.001)


def blocked(
    pool: ThreadPoolExecutor, sub: MemorySubscription, want: dict[str, int] | None = None
) -> Future[Sequence[Delivery]]:
    """Return the future of a fetch that has begun to wait."""
    future = pool.submit(sub.fetch, want or {"a": 10}, PATIENCE * 2)  # its own timeout must not pass for a wake-up
    until(lambda: bool(sub.waits_for))
    return future


class TestOrder:
    """What is fetched first."""

    def test_published_order_is_kept(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """Messages come in the order they were published, over any number of batches."""
        put(broker, "1", "2")
        put(broker, "3")

        assert ids(get(sub, 2)) == "12"
        assert ids(get(sub, 2)) == "3"

    def test_higher_priority_goes_first(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """A higher priority goes first; within one, the published order holds."""
        put(broker, "1", "2")
        put(broker, "3", "4", priority=255)
        put(broker, "5", priority=7)

        assert ids(get(sub, 3)) == "345"
        assert ids(get(sub)) == "12"

    def test_priority_holds_between_queues(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """One fetch of several queues yields the higher priorities of all of them first."""
        put(broker, "1", queue="a")
        put(broker, "2", queue="a", priority=3)
        put(broker, "3", queue="b", priority=5)

        fetched = sub.fetch({"a": 9, "b": 9}, 0.0)

        assert ids(fetched) == "321"
        assert [delivery.queue for delivery in fetched] == ["b", "a", "a"]

    def test_released_ones_return_to_their_place(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """Released messages stand where they stood, whatever the order and number of releases."""
        put(broker, *"123456")
        first, second, third, fourth = get(sub, 4)

        sub.release([third])
        sub.release([first])
        again = get(sub, 1)
        assert ids(again) == "1"
        sub.release([second, *again])

        assert ids(get(sub)) == "12356"
        assert ids([fourth]) == "4"

    def test_release_keeps_the_priority(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """A released message of low priority still goes after a later one of high priority."""
        put(broker, "1")
        sub.release(get(sub))
        put(broker, "2", priority=1)

        assert ids(get(sub)) == "21"


class TestFetch:
    """How much comes, and to whom."""

    def test_never_more_than_wanted(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """A fetch yields at most what is wanted of each queue, and nothing of others."""
        put(broker, *"12345", queue="a")
        put(broker, *"678", queue="b")

        assert ids(sub.fetch({"a": 2}, 0.0)) == "12"
        assert ids(sub.fetch({"a": 1, "b": 2}, 0.0)) == "367"
        assert sub.fetch({"a": 0}, 0.0) == []

    def test_credit_bounds_what_is_unsettled(self, broker: MemoryBroker) -> None:
        """No more is held of a queue than its credit; settling gives credit back."""
        sub = subscribe(broker, a=3)
        put(broker, *"12345")

        held = get(sub)
        assert ids(held) == "123"
        assert get(sub) == []
        sub.ack(held[:2])
        assert ids(get(sub)) == "45"

    def test_ack_wakes_a_fetch_without_credit(self, broker: MemoryBroker, pool: ThreadPoolExecutor) -> None:
        """A fetch that waits for credit goes on when an ack in another thread gives some back."""
        sub = subscribe(broker, a=1)
        put(broker, *"12")
        held = get(sub)
        waiting = blocked(pool, sub)

        sub.ack(held)

        assert ids(waiting.result(PATIENCE)) == "2"

    def test_subscriptions_share_without_doubles(self, broker: MemoryBroker, pool: ThreadPoolExecutor) -> None:
        """Four subscriptions and four publishers at once: each message is fetched exactly once."""
        total, seen, done = 4 * 50 * 20, Counter[str](), threading.Event()

        def consume(sub: MemorySubscription) -> list[str]:
            mine: list[str] = []
            while not done.is_set():
                got = sub.fetch({"a": 7, "b": 7}, 0.05)
                mine += [bytes(delivery.body).decode() for delivery in got]
                assert sub.ack(got) == []
            return mine

        consumers = [pool.submit(consume, subscribe(broker, a=50, b=50)) for _ in range(4)]
        for publisher in range(4):
            for batch in range(50):
                put(broker, *(f"{publisher}.{batch}.{n}" for n in range(20)), queue="ab"[batch % 2])
        until(lambda: broker.depth("a") == broker.depth("b") == Depth())
        done.set()
        for consumer in consumers:
            seen.update(consumer.result(PATIENCE))

        assert len(seen) == total
        assert set(seen.values()) == {1}

    def test_those_who_wait_get_their_share(self, broker: MemoryBroker, pool: ThreadPoolExecutor) -> None:
        """A batch that arrives while two wait is shared, though each of them would take all of it."""
        waiting = [blocked(pool, subscribe(broker), {"a": 100}) for _ in range(2)]

        put(broker, *"12345678")

        shares = sorted(len(future.result(PATIENCE)) for future in waiting)
        assert shares == [4, 4]

    def test_deliveries_have_no_deaths(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """No claim ever outlives its owner here, so deaths is 0, after a close and take-over as well."""
        put(broker, "1")
        get(sub)
        sub.close()

        assert [delivery.deaths for delivery in get(subscribe(broker))] == [0]

    def test_undeclared_queue_is_named(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """Fetching from a queue that was not subscribed to, or that nobody made, is an error that names it."""
        with pytest.raises(ValueError, match=r"queue 'c' is not one of this subscription's: a, b"):
            sub.fetch({"c": 1}, 0.0)

        stranger = broker.subscribe([QueueSpec(name="c")], {}, lambda _lost: None)
        with pytest.raises(QueueGone, match="'c'"):
            stranger.fetch({"c": 1}, 0.0)
        put(broker, "1", queue="c")
        assert ids(get(stranger, queue="c")) == "1"


class TestWaiting:
    """What ends a blocked fetch."""

    def test_publish_ends_it(self, broker: MemoryBroker, sub: MemorySubscription, pool: ThreadPoolExecutor) -> None:
        """A blocked fetch returns with what is published meanwhile."""
        waiting = blocked(pool, sub)

        put(broker, "1")

        assert ids(waiting.result(PATIENCE)) == "1"

    def test_other_queues_leave_it_alone(
        self, broker: MemoryBroker, sub: MemorySubscription, pool: ThreadPoolExecutor
    ) -> None:
        """A message of a queue that isn't wanted neither ends a fetch nor is taken."""
        waiting = blocked(pool, sub, {"a": 1})

        put(broker, "1", queue="b")
        put(broker, "2", queue="a")

        assert ids(waiting.result(PATIENCE)) == "2"
        assert broker.depth("b").ready == 1

    def test_release_ends_it(self, broker: MemoryBroker, sub: MemorySubscription, pool: ThreadPoolExecutor) -> None:
        """What another subscription releases comes to the one that waits."""
        put(broker, "1")
        other = subscribe(broker)
        held = get(other)
        waiting = blocked(pool, sub)

        other.release(held)

        assert ids(waiting.result(PATIENCE)) == "1"

    def test_wake_ends_it(self, sub: MemorySubscription, pool: ThreadPoolExecutor) -> None:
        """A woken fetch returns empty at once."""
        waiting = blocked(pool, sub)

        sub.wake()

        assert list(waiting.result(PATIENCE)) == []

    def test_wake_before_a_fetch_is_kept_once(
        self, broker: MemoryBroker, sub: MemorySubscription, pool: ThreadPoolExecutor
    ) -> None:
        """A wake that comes just before a fetch blocks lets that fetch return, and only that one."""
        sub.wake()
        assert list(pool.submit(sub.fetch, {"a": 1}, PATIENCE * 2).result(PATIENCE)) == []

        waiting = blocked(pool, sub)
        assert not waiting.done()
        put(broker, "1")
        assert ids(waiting.result(PATIENCE)) == "1"

    def test_wake_in_the_thread_that_publishes(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """A signal handler that wakes in the middle of a publish doesn't deadlock: the lock is re-entrant."""
        with broker.lock:
            sub.wake()

        assert get(sub) == []

    def test_timeout_is_real_time(self, sub: MemorySubscription) -> None:
        """A fetch returns empty after its timeout, though the broker's clock stands still."""
        started = time.monotonic()

        assert list(sub.fetch({"a": 1}, 0.02)) == []
        assert time.monotonic() - started >= 0.02

    @pytest.mark.parametrize("what", ["subscription", "broker"])
    def test_close_ends_it(
        self, broker: MemoryBroker, sub: MemorySubscription, pool: ThreadPoolExecutor, what: str
    ) -> None:
        """Closing the subscription or the broker from another thread lets a blocked fetch return empty."""
        waiting = blocked(pool, sub)

        (sub if what == "subscription" else broker).close()

        assert list(waiting.result(PATIENCE)) == []


class TestDelayAndTtl:
    """What the broker's clock decides."""

    def test_delayed_frame_comes_when_due(
        self, clock: FakeClock, broker: MemoryBroker, sub: MemorySubscription
    ) -> None:
        """A delayed message is not fetchable before its time, and is from it on."""
        put(broker, "1", delay=5.0)

        clock.advance(4.999)
        assert get(sub) == []
        clock.advance(0.001)
        assert ids(get(sub)) == "1"

    def test_due_ones_queue_up_by_when_they_fell_due(
        self, clock: FakeClock, broker: MemoryBroker, sub: MemorySubscription
    ) -> None:
        """Delayed messages come in the order of their times, behind what was ready, by priority."""
        put(broker, "1", delay=3.0)
        put(broker, "2", delay=1.0)
        put(broker, "3", "4", delay=1.0)
        put(broker, "5", delay=3.0, priority=1)
        put(broker, "6")

        clock.advance(3)
        assert ids(get(sub)) == "562341"

    def test_due_message_ends_a_fetch(
        self, clock: FakeClock, broker: MemoryBroker, sub: MemorySubscription, pool: ThreadPoolExecutor
    ) -> None:
        """A blocked fetch returns with a delayed message when the clock reaches its time."""
        put(broker, "1", delay=3600.0)
        waiting = blocked(pool, sub)

        clock.advance(3600)

        assert ids(waiting.result(PATIENCE)) == "1"

    def test_due_message_ends_a_fetch_on_the_systems_clock(self, pool: ThreadPoolExecutor) -> None:
        """With the machine's clock a blocked fetch waits just until the next message is due."""
        broker = MemoryBroker(None)
        broker.spec = MEMORY
        broker.open()
        broker.declare([QueueSpec(name="a")])
        sub = subscribe(broker)
        waiting = pool.submit(sub.fetch, {"a": 1}, PATIENCE * 2)
        until(lambda: bool(sub.waits_for))

        put(broker, "1", delay=0.02)

        assert ids(waiting.result(PATIENCE)) == "1"

    def test_expired_frame_is_never_fetched(
        self, clock: FakeClock, broker: MemoryBroker, sub: MemorySubscription
    ) -> None:
        """A message that nobody fetched within its ttl is gone; neighbours without one are unharmed."""
        put(broker, "1", ttl=5.0)
        put(broker, "2", "3")
        put(broker, "4", ttl=5.001)

        clock.advance(5)
        assert ids(get(sub, 2)) == "23"
        assert ids(get(sub)) == "4"

    def test_ttl_runs_during_the_delay(self, clock: FakeClock, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """The ttl counts from the publishing: a message whose delay is longer never comes."""
        put(broker, "1", delay=10.0, ttl=5.0)
        put(broker, "2", delay=10.0, ttl=15.0)

        clock.advance(10)
        assert ids(get(sub)) == "2"

    def test_expired_ones_are_not_counted(self, clock: FakeClock, broker: MemoryBroker) -> None:
        """Depth, peek and purge see no expired messages."""
        put(broker, *"12", ttl=5.0)
        put(broker, "3", ttl=5.0, delay=1.0)
        put(broker, "4")
        clock.advance(5)

        assert broker.depth("a") == Depth(ready=1)
        assert [frame.id for frame in broker.peek("a", 9)] == ["4"]
        assert broker.purge("a") == 1

    def test_expired_ones_take_no_room_where_nobody_fetches(self, clock: FakeClock, broker: MemoryBroker) -> None:
        """A queue that nobody consumes doesn't grow with messages that expire."""
        for _ in range(100):
            put(broker, *map(str, range(100)), ttl=1.0)
            clock.advance(1)

        assert broker._queues["a"].ready <= 2 * 1024

    def test_sweeping_loses_nothing_of_the_batch_that_causes_it(
        self, clock: FakeClock, broker: MemoryBroker, sub: MemorySubscription
    ) -> None:
        """Expired messages are removed in the middle of a publish without harm to the batch."""
        put(broker, *map(str, range(1000)), ttl=1.0)
        clock.advance(1)
        frames = [Frame(str(n), "a", str(n).encode(), ttl=None if n % 2 else 1.0) for n in range(3000)]

        broker.publish(frames, 1.0)

        assert [delivery.body for delivery in get(sub, 9999)] == [frame.body for frame in frames]


class TestSettling:
    """What becomes of deliveries."""

    def test_acked_ones_never_return(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """An acknowledged message is gone for good, in any order of acknowledging."""
        put(broker, *"123")
        assert sub.ack(get(sub)[::-1]) == []
        sub.close()

        assert get(subscribe(broker)) == []
        assert broker.depth("a") == Depth()

    def test_second_ack_is_harmless_and_reported(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """An ack of what is no longer ours returns it, and touches nobody else's."""
        put(broker, *"12")
        first, second = get(sub)

        assert sub.ack([first]) == []
        assert sub.ack([first, second]) == [first]

    def test_stale_receipt_settles_nothing(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """A delivery that was released and fetched again can't be settled by its old receipt."""
        put(broker, "1")
        (old,) = get(sub)
        sub.release([old])
        (new,) = get(sub)

        assert sub.ack([old]) == [old]
        assert sub.release([old]) == [old]
        assert sub.replace([(old, Frame("2", "a", b"2"))]) == [old]
        assert broker.depth("a") == Depth(running=1)
        assert sub.ack([new]) == []

    def test_other_subscriptions_delivery_is_not_ours(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """A subscription can't settle what another one holds."""
        put(broker, "1")
        held = get(sub)

        assert subscribe(broker).ack(held) == held
        assert sub.ack(held) == []

    def test_replace_puts_a_frame_in_its_stead(
        self, clock: FakeClock, broker: MemoryBroker, sub: MemorySubscription
    ) -> None:
        """A replaced message is gone, and its frame is there, on whatever queue and with its delay."""
        put(broker, *"12")
        first, second = get(sub)

        assert sub.replace([(first, Frame("3", "a", b"3", delay=2.0)), (second, Frame("4", "dead", b"4"))]) == []

        assert broker.depth("a") == Depth(delayed=1)
        assert broker.depth("dead") == Depth(ready=1)
        clock.advance(2)
        assert ids(get(sub)) == "3"

    def test_frame_of_a_fenced_delivery_is_not_stored(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """Replacing what is no longer ours stores nothing of it, and the rest of the batch goes on."""
        put(broker, *"12")
        first, second = get(sub)
        sub.ack([first])

        fenced = sub.replace([(first, Frame("3", "a", b"3")), (second, Frame("4", "a", b"4"))])

        assert fenced == [first]
        assert ids(get(sub)) == "4"

    def test_replacing_by_too_large_a_frame_fails_alone(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """A frame beyond the limits fails with its delivery named and still held; the others are replaced."""
        put(broker, *"12")
        first, second = get(sub)

        with pytest.raises(SettleError) as caught:
            sub.replace([(first, Frame("3", "a", b"3", priority=256)), (second, Frame("4", "a", b"4"))])

        assert list(caught.value.failed) == [first]
        assert broker.depth("a") == Depth(ready=1, running=1)
        assert sub.ack([first]) == []


class TestPublish:
    """What is taken and what is refused."""

    def test_key_is_refused_before_anything_is_stored(self, broker: MemoryBroker) -> None:
        """A frame with a key needs KEY_ORDERED, which this broker hasn't: none of its batch is stored."""
        with pytest.raises(UnsupportedCapability, match="key_ordered"):
            broker.publish([Frame("1", "a", b"1"), Frame("2", "a", b"2", key="k")], 1.0)

        assert broker.depth("a") == Depth()

    @pytest.mark.parametrize(("size", "priority", "fits"), [(8, 3, True), (9, 0, False), (0, 4, False), (0, -1, False)])
    def test_limits_are_kept(self, *, size: int, priority: int, fits: bool) -> None:
        """Frames up to the limits are stored; those beyond are named, and the rest of the batch is stored."""
        spec = BrokerSpec(
            name="memory",
            factory=MEMORY.factory,
            capabilities=MEMORY.capabilities,
            limits=Limits(max_body=8, priorities=4),
        )
        broker = build_broker(spec=spec)
        frames = [Frame("1", "a", b""), Frame("2", "a", bytes(size), priority=priority), Frame("3", "a", b"")]

        if fits:
            broker.publish(frames, 1.0)
        else:
            with pytest.raises(PublishError) as caught:
                broker.publish(frames, 1.0)
            assert (caught.value.failed, caught.value.unsure) == ((1,), ())

        assert broker.depth("a").ready == (3 if fits else 2)

    def test_bodies_pass_unchanged(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """Any bytes are carried as they are, the very object, without a copy."""
        bodies = [b"", bytes(range(256)), b"x" * 1_000_000]
        broker.publish([Frame(str(n), "a", body) for n, body in enumerate(bodies)], 1.0)

        assert all(delivery.body is body for delivery, body in zip(get(sub), bodies, strict=True))

    def test_undeclared_queue_is_made(self, broker: MemoryBroker) -> None:
        """Publishing to a queue that nobody declared makes it."""
        put(broker, "1", queue="new")

        assert broker.depth("new") == Depth(ready=1)
        assert list(broker.queues()) == ["a", "b", "new"]


class TestLooking:
    """Depth, peek, purge."""

    def test_depth_counts_each_state(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """Ready, delayed and running messages are counted apart, over all subscriptions."""
        put(broker, *"12345")
        put(broker, "6", delay=9.0)
        get(sub, 2)
        get(subscribe(broker), 1)

        assert broker.depth("a") == Depth(ready=2, delayed=1, running=3)

    def test_due_ones_are_ready(self, clock: FakeClock, broker: MemoryBroker) -> None:
        """A delayed message whose time has come counts as ready, though nobody fetches."""
        put(broker, "1", delay=1.0)
        clock.advance(1)

        assert broker.depth("a") == Depth(ready=1)
        assert [frame.id for frame in broker.peek("a", 1)] == ["1"]

    def test_peek_shows_the_next_and_takes_nothing(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """Peek shows waiting messages in the order of fetching, those that came back included, and leaves them."""
        put(broker, *"1234")
        put(broker, "5", priority=1)
        put(broker, "6", delay=1.0)
        held = get(sub, 3)
        sub.release(held[1:])

        assert [frame.id for frame in broker.peek("a", 3)] == ["1", "2", "3"]
        assert [frame.id for frame in broker.peek("a", 99)] == ["1", "2", "3", "4"]
        assert ids(get(sub)) == "1234"

    def test_purge_leaves_the_running(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """Purge removes waiting and delayed messages and says how many; the running ones can be settled."""
        put(broker, *"1234")
        put(broker, "5", delay=1.0)
        held = get(sub, 1)

        assert broker.purge("a") == 4
        assert broker.depth("a") == Depth(running=1)
        assert broker.purge("a") == 0
        assert sub.ack(held) == []

    def test_unknown_queue_is_empty(self, broker: MemoryBroker) -> None:
        """Looking at a queue that nobody made shows nothing, and doesn't make it."""
        assert broker.depth("c") == Depth()
        assert broker.purge("c") == 0
        assert list(broker.peek("c", 1)) == []
        assert list(broker.queues()) == ["a", "b"]


class TestTheEnd:
    """Closing, and what comes after."""

    def test_closing_gives_back_in_place(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """What a closed subscription held stands where it stood, before later messages."""
        put(broker, *"1234")
        first, second, _ = get(sub, 3)
        sub.ack([second])
        sub.close()
        sub.close()

        assert broker.depth("a") == Depth(ready=3)
        assert ids(get(subscribe(broker))) == "134"
        assert ids([first]) == "1"

    def test_closed_subscription_refuses(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """Fetching from or settling on a closed subscription raises Closed; waking it does nothing."""
        put(broker, "1")
        held = get(sub)
        sub.close()

        sub.wake()
        calls: list[Callable[[], object]] = [
            lambda: get(sub),
            lambda: sub.ack(held),
            lambda: sub.release(held),
            lambda: sub.replace([]),
        ]
        for call in calls:
            with pytest.raises(Closed, match="subscription of broker 'memory' is closed"):
                call()

    def test_closed_broker_refuses(self, broker: MemoryBroker) -> None:
        """Every use of a closed broker raises Closed; closing it again doesn't."""
        broker.close()
        broker.close()

        calls: list[Callable[[], object]] = [
            lambda: put(broker, "1"),
            lambda: broker.declare([]),
            lambda: subscribe(broker),
            lambda: broker.depth("a"),
            lambda: broker.purge("a"),
            lambda: broker.peek("a", 1),
            broker.queues,
        ]
        for call in calls:
            with pytest.raises(Closed, match="broker 'memory' is closed"):
                call()

    def test_reopened_broker_has_its_messages(self, broker: MemoryBroker, sub: MemorySubscription) -> None:
        """A broker that is opened again still has what it held, given back by the subscriptions it closed."""
        put(broker, *"12")
        get(sub, 1)
        broker.close()
        broker.open()
        broker.open()

        assert ids(get(subscribe(broker))) == "12"

    def test_two_brokers_share_nothing(self, broker: MemoryBroker) -> None:
        """Each broker object has messages of its own."""
        put(broker, "1")

        assert build_broker().depth("a") == Depth()
