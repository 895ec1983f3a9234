"""The broker through its contract, within one process."""

from __future__ import annotations

import math
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from boost_broker_sqlite import plugin
from boost_broker_sqlite.broker import SqliteBroker
from boost_broker_sqlite.plugin import SPEC, SqliteOptions
from boost_core.options import build_options
from boost_core.plugin import (
    BadOption,
    BrokerUnavailable,
    Closed,
    Delivery,
    Depth,
    Frame,
    PublishError,
    QueueGone,
    QueueKind,
    QueueSpec,
    SettleError,
    TaskConflict,
    UnsupportedCapability,
    sqlitefile,
)
from boost_core.plugin.sqlitefile import SqliteFile


class HandClock:
    """A clock that tests move."""

    def __init__(self):
        self.now = 1_800_000_000.0
        self.wrong = 0.0

    def time(self):
        """Return the moved time, by a date that may be wrong."""
        return self.now + self.wrong

    def monotonic(self):
        """Return the moved time."""
        return self.now


def build_broker(path, clock=None, **options):
    """Return an opened broker on a file."""
    broker = SqliteBroker(build_options("broker 'sqlite'", SqliteOptions, {"path": str(path), **options}))
    broker.spec = SPEC
    if clock is not None:
        broker.clock = clock
    broker.open()
    return broker


def subscribe(broker, *names, credit=None, lost=None):
    """Declare queues and return a subscription to them."""
    queues = [QueueSpec(name=name) for name in names]
    broker.declare(queues)
    return broker.subscribe(queues, credit or {}, lost or (lambda _: None))


def push(broker, *bodies, queue="q", **facts):
    """Publish bodies, each as a frame of its own, in one batch."""
    broker.publish([Frame(f"id-{body}", queue, str(body).encode(), **facts) for body in bodies], 5.0)


def fetch(subscription, count=100, timeout=0.0, queue="q"):
    """Return up to ``count`` deliveries of one queue."""
    return subscription.fetch({queue: count}, timeout)


def bodies(deliveries):
    """Return the bodies of deliveries or frames."""
    return [one.body.decode() for one in deliveries]


@pytest.fixture
def clock():
    """A clock that stands still."""
    return HandClock()


@pytest.fixture
def broker(tmp_path, clock):
    """An opened broker of a fresh file."""
    broker = build_broker(tmp_path / "q.db", clock)
    yield broker
    broker.close()


@pytest.fixture
def subscription(broker):
    """A subscription to the queue ``q``."""
    subscription = subscribe(broker, "q")
    yield subscription
    subscription.close()


class TestPublishAndFetch:
    """From frames to deliveries."""

    def test_round_trip(self, broker, subscription):
        """What is published is fetched: queue, body, and no deaths."""
        push(broker, "a")

        (delivery,) = fetch(subscription)

        assert (delivery.queue, delivery.body, delivery.deaths) == ("q", b"a", 0)

    @pytest.mark.parametrize("body", [b"", b"\x00\xff" * 10, os.urandom(1024 * 1024)])
    def test_bodies(self, broker, subscription, body):
        """Bodies are bytes, whatever is in them."""
        broker.publish([Frame("id", "q", body)], 5.0)

        assert fetch(subscription)[0].body == body

    @pytest.mark.parametrize("size", [1, 2, 500])
    def test_batches_keep_order(self, broker, subscription, size):
        """A batch is stored whole and fetched in its order, in as many fetches as one likes."""
        push(broker, *range(size))

        first = fetch(subscription, max(1, size // 3))
        assert bodies([*first, *fetch(subscription, 500)]) == [str(n) for n in range(size)]

    def test_never_more_than_wanted(self, broker, subscription):
        """A fetch returns at most what was wanted, and nothing of queues that weren't named."""
        subscribe(broker, "other").close()
        push(broker, 1, 2, 3)
        push(broker, 4, queue="other")

        assert bodies(fetch(subscription, 2)) == ["1", "2"]
        assert bodies(fetch(subscription, 2)) == ["3"]

    def test_several_queues_at_once(self, broker):
        """One fetch serves several queues, each up to its own want, higher priorities of any queue first."""
        subscription = subscribe(broker, "a", "b")
        push(broker, "a1", "a2", queue="a")
        push(broker, "b1", queue="b")
        push(broker, "b9", queue="b", priority=9)

        assert bodies(subscription.fetch({"a": 1, "b": 5}, 0.0)) == ["b9", "a1", "b1"]
        subscription.close()

    @pytest.mark.parametrize("name", ["a/b", "队列", "spaced out 'quoted'", "x" * 300, "🦀.dead"])
    def test_any_queue_name(self, broker, name):
        """Queues are rows, so any text names one."""
        subscription = subscribe(broker, name)
        push(broker, "x", queue=name)

        assert bodies(fetch(subscription, queue=name)) == ["x"]
        assert broker.queues() == [name]
        subscription.close()

    def test_publishing_makes_the_queue(self, broker):
        """A frame for a queue that nobody declared yet waits for whoever declares it."""
        push(broker, 1, queue="new")
        push(broker, 2, queue="new")

        subscription = subscribe(broker, "new")
        assert bodies(fetch(subscription, queue="new")) == ["1", "2"]
        subscription.close()

    def test_undeclared_queue_can_not_be_fetched(self, subscription):
        """Fetching from a queue that was never subscribed is an error that names it."""
        with pytest.raises(QueueGone, match="'nope'"):
            fetch(subscription, queue="nope")

    def test_credit_bounds_what_is_unsettled(self, broker):
        """No more than its credit is held of a queue, however much is wanted."""
        subscription = subscribe(broker, "q", credit={"q": 2})
        push(broker, 1, 2, 3)

        held = fetch(subscription)
        assert bodies(held) == ["1", "2"]
        assert fetch(subscription) == []
        subscription.ack(held[:1])
        assert bodies(fetch(subscription)) == ["3"]
        subscription.close()

    def test_order_survives_an_emptied_queue(self, broker, subscription):
        """Places in line are given out again once a queue is empty, and the order holds all the same."""
        for round_ in range(3):
            push(broker, f"{round_}a")
            push(broker, f"{round_}b", f"{round_}c")
            held = fetch(subscription)
            assert bodies(held) == [f"{round_}{letter}" for letter in "abc"]
            push(broker, f"{round_}d")
            assert subscription.ack(held) == []
            assert subscription.ack(fetch(subscription)) == []

    def test_released_message_goes_before_later_ones(self, broker, subscription):
        """A message that was given back keeps its place, also when later ones came while it ran."""
        push(broker, 1)
        held = fetch(subscription)
        push(broker, 2)
        subscription.release(held)

        assert bodies(fetch(subscription)) == ["1", "2"]

    def test_publishing_threads_lose_nothing(self, broker, subscription):
        """Eight threads publish through one broker; everything is stored once."""
        threads = [
            threading.Thread(target=lambda name=name: [push(broker, f"{name}-{n}") for n in range(50)])
            for name in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert sorted(bodies(fetch(subscription, 500))) == sorted(f"{name}-{n}" for name in range(8) for n in range(50))


class TestRefusals:
    """What can't be had is said, before anything is stored."""

    def test_key_is_refused(self, broker):
        """A key needs an order by key, which this broker lacks; nothing of the batch is stored."""
        with pytest.raises(UnsupportedCapability, match="key_ordered"):
            broker.publish([Frame("a", "q", b""), Frame("b", "q", b"", key="k")], 5.0)

        assert broker.depth("q") == Depth()

    @pytest.mark.parametrize("priority", [-1, 256])
    def test_priority_beyond_the_limit(self, broker, priority):
        """A priority outside its range fails by index; the rest of the batch is stored."""
        with pytest.raises(PublishError, match=f"priority {priority} is outside 0 to 255") as caught:
            broker.publish([Frame("a", "q", b""), Frame("b", "q", b"", priority=priority)], 5.0)

        assert tuple(caught.value.failed) == (1,)
        assert broker.depth("q").ready == 1

    def test_body_at_the_limit(self, broker):
        """A body of the limit's size is stored; one byte more fails, and says both sizes."""
        largest = SPEC.limits.max_body
        broker.publish([Frame("a", "q", bytes(largest))], 5.0)

        with pytest.raises(PublishError, match="16,777,217 bytes is over the 16,777,216"):
            broker.publish([Frame("b", "q", bytes(largest + 1))], 5.0)

        assert broker.depth("q").ready == 1

    def test_wrong_durability(self):
        """A durability that doesn't exist is a ``BadOption`` that names those that do."""
        with pytest.raises(BadOption, match="option durability='disk' can't be used: it is 'process' or 'power'"):
            build_options("broker 'sqlite'", SqliteOptions, {"durability": "disk"})

    @pytest.mark.parametrize("name", ["lease", "timeout"])
    def test_times_must_be_positive(self, name):
        """A lease or time-out of nothing is refused."""
        with pytest.raises(BadOption, match="it must be over 0 seconds"):
            build_options("broker 'sqlite'", SqliteOptions, {name: 0})


class TestPriorityDelayTtl:
    """What a frame may ask for."""

    def test_higher_priority_first(self, broker, subscription):
        """Higher priorities go first, equals in their order."""
        for body, priority in (("a0", 0), ("b255", 255), ("c7", 7), ("d0", 0), ("e7", 7)):
            push(broker, body, priority=priority)

        assert bodies(fetch(subscription)) == ["b255", "c7", "e7", "a0", "d0"]

    def test_delay(self, broker, subscription, clock):
        """A delayed frame can't be fetched before it is due, and then at its place in line."""
        push(broker, "late", delay=60)
        push(broker, "now")
        assert bodies(fetch(subscription)) == ["now"]

        clock.now += 59.9
        assert fetch(subscription) == []
        push(broker, "after")
        clock.now += 0.2
        assert bodies(fetch(subscription)) == ["late", "after"]

    def test_blocked_fetch_wakes_for_delayed(self, tmp_path, monkeypatch):
        """A blocked fetch returns when a delayed frame falls due, not when it looks by itself or its time ends."""
        monkeypatch.setattr("boost_broker_sqlite.subscription.SWEEP_SECONDS", 1e9)
        broker = build_broker(tmp_path / "q.db", lease=1e9)
        subscription = subscribe(broker, "q")
        started = time.monotonic()
        push(broker, "late", delay=0.05)

        assert bodies(fetch(subscription, timeout=20)) == ["late"]
        assert time.monotonic() < started + 10
        subscription.close()
        broker.close()

    def test_ttl(self, broker, subscription, clock):
        """A frame that nobody fetched in its time to live is gone, whether it was ready or delayed."""
        push(broker, "short", ttl=5)
        push(broker, "hidden", ttl=5, delay=3)
        push(broker, "long", ttl=50)
        clock.now += 6

        assert bodies(broker.peek("q", 9)) == ["long"]
        assert broker.depth("q") == Depth(ready=1)
        assert bodies(fetch(subscription)) == ["long"]

    def test_running_message_does_not_expire(self, broker, subscription, clock):
        """The time to live ends with the fetch: a running message stays, and expires only once given back."""
        push(broker, "x", ttl=5)
        held = fetch(subscription)
        clock.now += 6
        assert fetch(subscription) == []
        assert broker.depth("q").running == 1

        subscription.release(held)
        assert fetch(subscription) == []


class TestSettle:
    """How deliveries end."""

    def test_ack_ends_it(self, broker, subscription):
        """An acknowledged message never comes back."""
        push(broker, 1, 2)
        assert subscription.ack(fetch(subscription)) == []

        assert fetch(subscription) == []
        assert broker.depth("q") == Depth()

    def test_settling_twice_is_harmless(self, broker, subscription):
        """A second settle is told as not ours, and never touches a newer message at the same place."""
        push(broker, "old")
        (old,) = fetch(subscription)
        subscription.ack([old])
        push(broker, "new")
        (new,) = fetch(subscription)
        assert new.receipt == old.receipt

        for settle in (subscription.ack, subscription.release):
            assert settle([old]) == [old]
        assert subscription.replace([(old, Frame("r", "q", b"r"))]) == [old]
        assert broker.depth("q") == Depth(running=1)
        assert subscription.ack([new]) == []

    def test_reverse_order_and_many(self, broker, subscription):
        """Any order and 500 at once can be settled."""
        push(broker, *range(500))
        held = fetch(subscription, 500)

        assert subscription.ack(held[::-1]) == []
        assert broker.depth("q") == Depth()

    def test_release_is_uncounted(self, broker, subscription):
        """A released message is there again at once, without a death."""
        push(broker, 1)
        assert subscription.release(fetch(subscription)) == []

        (again,) = fetch(subscription)
        assert (again.body, again.deaths) == (b"1", 0)

    def test_replace(self, broker, subscription, clock):
        """A replaced delivery is gone and its frame is stored, with queue, delay and priority of its own."""
        push(broker, 1, 2)
        one, two = fetch(subscription)
        pairs = [(one, Frame("n", "q", b"next", delay=9)), (two, Frame("d", "q.dead", b"dead", priority=3))]
        assert subscription.replace(pairs) == []

        assert broker.depth("q") == Depth(delayed=1)
        assert bodies(broker.peek("q.dead", 9)) == ["dead"]
        clock.now += 9
        assert bodies(fetch(subscription)) == ["next"]

    def test_a_misfit_fails_alone(self, broker, subscription):
        """A frame that can't be stored is told and leaves its delivery as it was; the rest of the call takes effect."""
        push(broker, 1, 2, 3)
        one, two, three = fetch(subscription)
        large = bytes(SPEC.limits.max_body + 1)
        pairs = [(one, Frame("n", "q", b"ok")), (two, Frame("n", "q", large)), (three, Frame("n", "q", b"", 256))]

        with pytest.raises(SettleError, match=r"is over the 16,777,216") as caught:
            subscription.replace(pairs)

        assert caught.value.failed == [two, three]
        assert broker.depth("q") == Depth(ready=1, running=2)
        assert bodies(fetch(subscription)) == ["ok"]
        assert subscription.ack([two, three]) == []

    def test_misfits_stay_held_also_where_nothing_can_be_written(self, broker, subscription, monkeypatch):
        """Where the file can't be written, both what fits and what doesn't is told, and stays ours."""
        push(broker, 1, 2)
        one, two = fetch(subscription)
        with monkeypatch.context() as patch:
            patch.setattr(sqlitefile.locks, "lock", lambda _: False)
            patch.setattr(broker._file, "timeout", 0.01)
            with pytest.raises(SettleError, match="kept locked") as caught:
                subscription.replace([(one, Frame("n", "q", b"", 256)), (two, Frame("n", "q", b"ok"))])

        assert set(map(id, caught.value.failed)) == {id(one), id(two)}
        assert subscription.ack([one, two]) == []

    def test_settle_error_leaves_it_held(self, broker, subscription, monkeypatch):
        """Where the file can't be written, a settle fails by name, and can be repeated."""
        push(broker, 1)
        held = fetch(subscription)
        with monkeypatch.context() as patch:
            patch.setattr(sqlitefile.locks, "lock", lambda _: False)
            patch.setattr(broker._file, "timeout", 0.01)
            with pytest.raises(SettleError, match="kept locked") as caught:
                subscription.ack(held)

        assert list(caught.value.failed) == list(held)
        assert subscription.ack(held) == []

    def test_failed_publish_names_its_frames(self, broker, monkeypatch):
        """Where the file can't be written in time, all frames surely failed."""
        monkeypatch.setattr(sqlitefile.locks, "lock", lambda _: False)

        with pytest.raises(PublishError, match="kept locked") as caught:
            broker.publish([Frame("a", "q", b""), Frame("b", "q", b"")], 0.01)

        assert list(caught.value.failed) == [0, 1]

    def test_close_gives_back_uncounted(self, broker):
        """What is unsettled at close goes to others at once, without a death, and no file of the worker stays."""
        first = subscribe(broker, "q")
        push(broker, 1, 2)
        fetch(first)
        first.close()
        first.close()

        second = subscribe(broker, "q")
        assert [(one.body, one.deaths) for one in fetch(second)] == [(b"1", 0), (b"2", 0)]
        second.close()
        assert not list(Path(f"{broker.path}.workers").iterdir())
        with pytest.raises(Closed):
            fetch(first)


class TestWaking:
    """A blocked fetch returns as soon as there is a reason."""

    @pytest.fixture
    def broker(self, tmp_path, clock, monkeypatch):
        """A broker whose subscriptions never look by themselves."""
        monkeypatch.setattr("boost_broker_sqlite.subscription.SWEEP_SECONDS", 1e9)
        broker = build_broker(tmp_path / "w.db", clock, lease=1e9)
        yield broker
        broker.close()

    def start(self, subscription):
        """Fetch in a thread, and return once it blocks: the thread, and the list that gets the result."""
        got = []
        thread = threading.Thread(target=lambda: got.append(fetch(subscription, timeout=60)))
        thread.start()
        deadline = time.monotonic() + 10
        while not subscription._seat._marks[subscription._seat._number]:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return thread, got

    def test_publish_wakes(self, broker, subscription):
        """A message published by another thread ends the wait."""
        thread, got = self.start(subscription)
        push(broker, 1)
        thread.join(10)

        assert bodies(got[0]) == ["1"]

    def test_release_and_replace_wake(self, broker, subscription):
        """What another subscription gives back or puts on the queue ends the wait too."""
        push(broker, 1)
        held = fetch(subscription)
        for settle in (subscription.release, lambda held: subscription.replace([(held[0], Frame("n", "q", b"n"))])):
            other = subscribe(broker, "q")
            thread, got = self.start(other)
            settle(held)
            thread.join(10)
            assert len(got[0]) == 1
            other.close()
            held = fetch(subscription)

    def test_wake(self, subscription):
        """``wake`` ends a fetch, also one that comes just after it."""
        thread, got = self.start(subscription)
        subscription.wake()
        thread.join(10)
        assert got == [[]]

        subscription.wake()
        assert fetch(subscription, timeout=30) == []

    def test_close_ends_fetch(self, broker):
        """``close`` from another thread ends a blocked fetch."""
        subscription = subscribe(broker, "q")
        thread, got = self.start(subscription)
        subscription.close()
        thread.join(10)

        assert got == [[]]

    def test_fetch_in_time(self, subscription):
        """With nothing there a fetch returns an empty list after its time."""
        assert fetch(subscription, timeout=0.01) == []

    def test_moved_clock_wakes(self, broker, tmp_path, clock):
        """A clock that tells when it is moved makes a blocked fetch look again."""
        moved = []
        clock.subscribe = moved.append
        broker = build_broker(tmp_path / "m.db", clock, lease=1e9)
        subscription = subscribe(broker, "q")
        push(broker, 1, delay=1000)
        thread, got = self.start(subscription)
        clock.now += 1000
        moved[0]()
        thread.join(10)

        assert bodies(got[0]) == ["1"]
        subscription.close()
        broker.close()


class TestLeases:
    """Who is alive, by the clock."""

    def test_lease_runs_out(self, broker, subscription, clock):
        """A worker that doesn't extend loses what it holds, counted as a death; its late settle is refused."""
        push(broker, 1, 2)
        held = fetch(subscription)
        clock.now += 11
        other = subscribe(broker, "q")

        assert [(one.body, one.deaths) for one in fetch(other)] == [(b"1", 1), (b"2", 1)]
        assert subscription.ack(held) == held
        assert broker.depth("q").running == 2
        other.close()

    def test_extend_keeps(self, broker, subscription, clock):
        """A worker that extends keeps everything, and nothing is reported as lost."""
        push(broker, 1)
        held = fetch(subscription)
        other = subscribe(broker, "q")
        for _ in range(5):
            clock.now += 9
            assert subscription.extend(held) == []
            other.extend([])
            other._next_sweep = 0
            assert fetch(other) == []
        assert subscription.ack(held) == []
        other.close()

    def test_a_date_set_forward_takes_nothing_away(self, broker, subscription, clock):
        """However far the machine's date is set, whose lease was renewed in time keeps what it holds."""
        push(broker, 1)
        held = fetch(subscription)
        clock.wrong = 3600
        other = subscribe(broker, "q")

        assert fetch(other) == []
        assert subscription.ack(held) == []
        other.close()

    def test_a_date_set_back_delays_no_take_over(self, broker, subscription, clock):
        """A worker that doesn't extend loses what it holds after its lease, whatever the machine's date is meanwhile."""
        push(broker, 1)
        fetch(subscription)
        clock.wrong = -3600
        clock.now += 11
        other = subscribe(broker, "q")

        assert bodies(fetch(other)) == ["1"]
        other.close()

    def test_extend_tells_what_is_lost(self, broker, subscription, clock):
        """After a take-over ``extend`` returns what is gone, and the worker goes on under a new number."""
        push(broker, 1)
        held = fetch(subscription)
        clock.now += 11
        other = subscribe(broker, "q")
        taken = fetch(other)

        assert subscription.extend(held) == held
        assert subscription.ack(held) == held
        push(broker, 2)
        new = fetch(subscription)
        assert bodies(new) == ["2"]
        assert subscription.extend(new) == []
        assert subscription.ack(new) == other.ack(taken) == []
        other.close()

    def test_fetch_tells_what_is_lost(self, broker, clock):
        """A worker that finds itself taken over at a fetch reports what it held, and fetches on."""
        lost = []
        subscription = subscribe(broker, "q", lost=lost.extend)
        push(broker, 1)
        held = fetch(subscription)
        clock.now += 11
        other = subscribe(broker, "q")
        other.ack(fetch(other))
        push(broker, 2)

        assert bodies(fetch(subscription, timeout=10)) == ["2"]
        assert lost == held
        subscription.close()
        other.close()

    def test_partly_fenced_batch(self, broker, subscription, clock):
        """Of a batch that is partly ours, ours is settled and exactly the rest returned."""
        push(broker, 1, 2, 3)
        held = fetch(subscription)
        with broker._file.write() as connection:
            connection.execute("UPDATE running SET owner = 99 WHERE body = CAST('2' AS BLOB)")

        assert subscription.ack(held) == [held[1]]
        assert broker.depth("q").running == 1

    def test_renewal_during_a_sweep_counts(self, broker, subscription, clock, monkeypatch):
        """A worker that renews its lease between a sweeper's look and its transaction keeps everything."""
        push(broker, 1)
        held = fetch(subscription)
        clock.now += 11
        other = subscribe(broker, "q")
        write, renewed = SqliteFile.write, []

        def late_write(*given):
            if not renewed:
                renewed.append(True)
                assert subscription.extend(held) == []
            return write(*given)

        monkeypatch.setattr(SqliteFile, "write", late_write)

        assert fetch(other) == []
        assert subscription.ack(held) == []
        other.close()

    def test_deaths_add_up(self, broker, clock):
        """Each death of an owner counts; a replaced message starts without any."""
        push(broker, 1)
        for deaths in range(3):
            subscription = subscribe(broker, "q")
            (held,) = fetch(subscription)
            assert held.deaths == deaths
            clock.now += 11
        last = subscribe(broker, "q")
        (held,) = fetch(last)
        last.replace([(held, Frame("n", "q", b"n"))])
        assert [one.deaths for one in fetch(last)] == [0]


class TestDeclare:
    """Queues, and who they belong to."""

    def test_is_idempotent(self, broker):
        """Declaring again changes nothing."""
        subscribe(broker, "q").close()
        push(broker, 1)
        subscribe(broker, "q").close()

        assert broker.depth("q").ready == 1

    def test_one_queue_too_many(self, broker, subscription):
        """Where a file has all the queues that it can, another one is refused by name, before anything is stored."""
        with broker._file.write() as connection:
            connection.execute("INSERT INTO queue (id, name) VALUES (32766, 'many')")
        broker.declare([QueueSpec(name="last")])

        with pytest.raises(BrokerUnavailable) as undeclared:
            broker.declare([QueueSpec(name="one more")])
        with pytest.raises(PublishError, match="there is no room for 'one more'") as unpublished:
            broker.publish([Frame("a", "q", b""), Frame("b", "one more", b"")], 5.0)
        push(broker, "1", queue="last")

        assert str(undeclared.value) == (
            f"broker 'sqlite': {broker.path} has 32,767 queues already; there is no room for 'one more'\n"
            "  Use fewer names, and arguments for what differs. A new file starts anew."
        )
        assert list(unpublished.value.failed) == [0, 1]
        assert broker.depth("q") == Depth()
        assert broker.depth("last").ready == 1

    def test_other_origin_is_refused(self, broker):
        """A queue with messages belongs to the file that declared it; the error shows both and the way out."""
        broker.declare([QueueSpec(name="run", origin="/a/one.py")])
        push(broker, 1, queue="run")

        with pytest.raises(TaskConflict) as caught:
            broker.declare([QueueSpec(name="fresh"), QueueSpec(name="run", origin="/a/two.py")])

        assert str(caught.value) == (
            "two functions claim the queue 'run':\n  /a/one.py\n  /a/two.py\n"
            '  Give one of them a name of its own: @boost("other-run")'
        )
        assert broker.queues() == ["run"]

    @pytest.mark.parametrize("state", ["delayed", "running"])
    def test_any_message_counts(self, broker, state):
        """Delayed and running messages hold a queue for its file as well."""
        broker.declare([QueueSpec(name="q", origin="/a/one.py")])
        subscription = subscribe(broker, "q")
        push(broker, 1, delay=60 if state == "delayed" else 0)
        fetch(subscription)

        with pytest.raises(TaskConflict):
            broker.declare([QueueSpec(name="q", origin="/a/two.py")])
        subscription.close()

    def test_empty_queue_changes_hands(self, broker):
        """An empty queue goes to the file that declares it next, which then owns it."""
        broker.declare([QueueSpec(name="run", origin="/a/one.py")])
        broker.declare([QueueSpec(name="run", origin="/a/two.py")])
        push(broker, 1, queue="run")

        broker.declare([QueueSpec(name="run", origin="/a/two.py")])
        with pytest.raises(TaskConflict):
            broker.declare([QueueSpec(name="run", origin="/a/one.py")])

    def test_no_origin_never_conflicts(self, broker):
        """Who named the queue may use it with anybody, and doesn't become its owner."""
        broker.declare([QueueSpec(name="run", origin="/a/one.py")])
        push(broker, 1, queue="run")
        broker.declare([QueueSpec(name="run")])
        broker.declare([QueueSpec(name="run", kind=QueueKind.DEAD, origin="/a/three.py")])

        with pytest.raises(TaskConflict, match=r"/a/one\.py"):
            broker.declare([QueueSpec(name="run", origin="/a/two.py")])


class TestInspection:
    """Looking in from outside."""

    def test_depth(self, broker, subscription, clock):
        """Ready, delayed and running are counted; what fell due is ready, also before anybody fetches."""
        push(broker, 1, 2, 3)
        push(broker, 4, 5, delay=10)
        fetch(subscription, 1)
        assert broker.depth("q") == Depth(ready=2, delayed=2, running=1)

        clock.now += 10
        assert broker.depth("q") == Depth(ready=4, running=1)
        assert broker.depth("unheard-of") == Depth()

    def test_counting_keeps_nobody_waiting(self, tmp_path):
        """While one thread counts a queue, others of its process publish, fetch and settle."""
        counting, counted, found = threading.Event(), threading.Event(), []

        class SlowClock(HandClock):
            def time(self):
                if threading.current_thread() is thread:
                    counting.set()
                    assert counted.wait(30)
                return super().time()

        broker = build_broker(tmp_path / "q.db", SlowClock(), timeout=0.5)
        thread = threading.Thread(target=lambda: found.append(broker.depth("q")))
        subscription = subscribe(broker, "q")
        push(broker, 1)
        thread.start()
        assert counting.wait(30)

        push(broker, 2)
        assert subscription.ack(fetch(subscription)) == []
        counted.set()
        thread.join(30)

        assert found == [Depth(ready=1)]
        subscription.close()
        broker.close()

    def test_peek(self, broker, subscription, clock):
        """Peeking shows the next messages as they would be fetched, and takes nothing."""
        push(broker, "low", ttl=100)
        push(broker, "due", delay=1)
        push(broker, "high", priority=4)
        push(broker, "later", delay=100)
        clock.now += 1

        frames = broker.peek("q", 10)
        assert bodies(frames) == ["high", "low", "due"]
        assert [frame.priority for frame in frames] == [4, 0, 0]
        assert (frames[1].id, frames[1].queue, frames[1].ttl) == ("id-low", "q", 99.0)
        assert bodies(broker.peek("q", 1)) == ["high"]
        assert list(broker.peek("unheard-of", 1)) == []
        assert bodies(fetch(subscription)) == ["high", "low", "due"]

    def test_purge(self, broker, subscription):
        """A purge removes what waits and what is delayed, of that queue only, and not what runs."""
        push(broker, *range(6000))
        push(broker, "d", delay=60)
        push(broker, "x", queue="other")
        held = fetch(subscription, 1)

        assert broker.purge("q") == 6000
        assert broker.depth("q") == Depth(running=1)
        assert broker.depth("other").ready == 1
        assert subscription.ack(held) == []
        assert broker.purge("q") == broker.purge("unheard-of") == 0

    def test_queues(self, broker):
        """All queues are named, sorted."""
        broker.declare([QueueSpec(name="b"), QueueSpec(name="a"), QueueSpec(name="a.dead", kind=QueueKind.DEAD)])

        assert broker.queues() == ["a", "a.dead", "b"]

    def test_where(self, broker, tmp_path):
        """A broker says which file it uses."""
        assert broker.where() == str(tmp_path / "q.db")


class TestLife:
    """Opening, closing, and files that can't be used."""

    def test_open_and_close_are_idempotent(self, broker):
        """Both can be repeated; afterwards every use raises ``Closed``."""
        broker.open()
        broker.close()
        broker.close()
        for use in (
            lambda: push(broker, 1),
            lambda: broker.publish([], 1.0),
            lambda: broker.declare([]),
            lambda: broker.depth("q"),
            lambda: broker.peek("q", 1),
            lambda: broker.purge("q"),
            broker.queues,
            lambda: broker.subscribe([], {}, lambda _: None),
        ):
            with pytest.raises(Closed):
                use()

    def test_two_brokers_in_one_process(self, broker, subscription):
        """Two brokers on one file see each other's messages."""
        second = build_broker(broker.path, broker.clock)
        push(second, 1)

        assert bodies(fetch(subscription)) == ["1"]
        second.close()

    def test_files_are_private(self, broker, subscription):
        """All files and folders belong to the user alone."""
        push(broker, 1)
        for path in broker.path.parent.rglob("*"):
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path

    def test_power_durability(self, tmp_path):
        """``durability="power"`` makes SQLite wait for the disk at every commit."""
        broker = build_broker(tmp_path / "p.db", durability="power")
        with broker._file.locked() as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        broker.close()

    def test_read_only_database(self, broker):
        """A read-only file is refused when the broker opens, with the remedy."""
        broker.close()
        broker.path.chmod(0o400)

        with pytest.raises(BrokerUnavailable, match=r"q\.db is read-only\n  Name a place that can be written"):
            build_broker(broker.path)

    def test_newer_schema(self, broker):
        """A file of a later version of this package is refused with both versions."""
        broker.close()
        with sqlite3.connect(broker.path) as connection:
            connection.execute("PRAGMA user_version = 9")
        connection.close()

        with pytest.raises(BrokerUnavailable, match="has schema version 9; this boost-broker-sqlite knows"):
            build_broker(broker.path)

    def test_not_a_database(self, tmp_path):
        """A file that is no database is refused."""
        (tmp_path / "q.db").write_bytes(b"no database " * 100)

        with pytest.raises(BrokerUnavailable, match="is not an SQLite database"):
            build_broker(tmp_path / "q.db")

    def test_network_file_system(self, tmp_path, monkeypatch):
        """A network file system is refused."""
        monkeypatch.setattr(sqlitefile, "filesystem_of", lambda _: "nfs")

        with pytest.raises(BrokerUnavailable, match=r"network file system \(nfs\)"):
            build_broker(tmp_path / "q.db")

    def test_default_path(self, tmp_path, monkeypatch):
        """Without a path the file is the project's; the environment wins over that."""
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        monkeypatch.delenv("BOOST_SQLITE_PATH", raising=False)
        assert SqliteBroker(SqliteOptions()).path.is_relative_to(tmp_path / "data" / "boost")

        monkeypatch.setenv("BOOST_SQLITE_PATH", str(tmp_path / "mine.db"))
        assert SqliteBroker(SqliteOptions()).path == tmp_path / "mine.db"

    def test_plugin_imports_no_sqlite(self):
        """The light module names what core needs, without importing SQLite."""
        code = "import sys, boost_broker_sqlite.plugin; print('sqlite3' in sys.modules)"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True)

        assert done.stdout == "False\n"
        assert plugin.boost_brokers() == [SPEC]

    def test_receipts_are_of_this_broker(self, subscription):
        """A delivery made up by somebody else is not ours."""
        stranger = Delivery("q", b"", (math.inf, 1))

        assert subscription.ack([stranger]) == [stranger]
