"""The broker through its contract, within one process."""

from __future__ import annotations

import os
import threading
import time

import pytest
from boost_broker_kafka import holdings, ladder
from boost_broker_kafka.checks import check
from boost_broker_kafka.plugin import boost_checks
from boost_broker_kafka.topics import delay_topic
from boost_core.plugin import (
    BrokerUnavailable,
    Closed,
    Depth,
    Examined,
    Frame,
    Level,
    PublishError,
    QueueGone,
    QueueKind,
    QueueSpec,
    UnsupportedCapability,
)
from confluent_kafka.admin import NewTopic
from kafka_stage import PATIENCE, bodies, push, take, until


class Plan:
    """As much of a task's plan as a check looks at."""

    def __init__(self, queue):
        self.queue = queue


def test_server_is_there():
    """A server that can't be had fails the run where everything must be proven."""
    from launcher import available

    reason = available("kafka")

    assert reason is None or os.environ.get("CI") != "true"


class TestDeclaring:
    """How topics come to be, and what is wrong with those that are there."""

    def test_topics_are_as_stated(self, stage, queue):
        """Partitions, retention and size are the options'; a dead-letter queue has one partition and no delays."""
        broker = stage.broker(partitions=3, retention="2h", max_body=3_000_000)
        dead = QueueSpec(name=f"{queue}.dead", kind=QueueKind.DEAD)

        broker.declare([QueueSpec(name=queue), dead])

        topics = stage.admin.list_topics(timeout=PATIENCE).topics
        mine = {name: len(topic.partitions) for name, topic in topics.items() if queue in name}
        assert mine == {queue: 3, f"{queue}-delay": ladder.RUNGS, f"{queue}.dead": 1}
        settings = broker.cluster.settings([queue])[queue]
        assert (settings["retention.ms"], settings["max.message.bytes"]) == ("7200000", "3004096")

    def test_declaring_again_changes_nothing(self, stage, queue):
        """A topic that is there stays as it is, whatever the options say now."""
        stage.broker(partitions=3).declare([QueueSpec(name=queue)])

        broker = stage.broker(partitions=5)
        broker.declare([QueueSpec(name=queue)])

        assert broker.cluster.describe([queue])[queue].partitions == 3

    def test_dot_and_underscore(self, stage, queue):
        """Two queues that Kafka can't tell apart are an error that says why."""
        broker = stage.broker()
        broker.declare([QueueSpec(name=f"{queue}.a")])

        with pytest.raises(BrokerUnavailable) as caught:
            broker.declare([QueueSpec(name=f"{queue}_a")])
        assert str(caught.value) == (
            f"broker 'kafka': topic '{queue}_a' can't be made: Topic '{queue}_a' collides with existing topic: {queue}.a\n"
            "  To Kafka a dot and an underscore are the same: rename one queue."
        )

    def test_topic_that_takes_less(self, stage, queue):
        """A topic whose messages may be smaller than max_body is refused before anything is lost on it."""
        topic = NewTopic(queue, 1, 1, config={"max.message.bytes": "100000"})
        stage.admin.create_topics([topic])[queue].result(PATIENCE)

        with pytest.raises(BrokerUnavailable) as caught:
            stage.broker().declare([QueueSpec(name=queue)])
        assert str(caught.value) == (
            f"broker 'kafka': topic '{queue}' takes 100,000 bytes at most, less than max_body=1,000,000\n"
            "  Raise the topic's max.message.bytes to 1,004,096, or set max_body=95904."
        )
        stage.broker(max_body=95904).declare([QueueSpec(name=queue)])

    def test_order_that_a_topic_can_not_keep(self, stage, queue):
        """partitions=1 promises the order of a queue, which a topic with more doesn't have."""
        stage.broker(partitions=2).declare([QueueSpec(name=queue)])

        with pytest.raises(BrokerUnavailable) as caught:
            stage.broker(partitions=1).declare([QueueSpec(name=queue)])
        assert str(caught.value) == (
            f"broker 'kafka': topic '{queue}' has 2 partitions, where partitions=1 promises the order of a whole queue\n"
            "  Set partitions=2, or delete the topic when it is empty."
        )

    def test_more_copies_than_servers(self, stage, queue):
        """Kafka's refusal is handed on with its remedy."""
        with pytest.raises(BrokerUnavailable, match="Set replication to the number of servers at most") as caught:
            stage.broker(replication=3).declare([QueueSpec(name=queue)])
        assert f"topic '{queue}' can't be made" in str(caught.value)


class TestPublishing:
    """From frames to records."""

    def test_what_it_can_not_do_is_refused(self, broker, queue):
        """Priority and time to live are refused by name, before anything is stored."""
        broker.declare([QueueSpec(name=queue)])

        for facts, asks in (({"priority": 3}, "priority=3"), ({"ttl": 5.0}, "ttl=5")):
            with pytest.raises(UnsupportedCapability, match=asks):
                broker.publish([Frame("a", queue, b"a"), Frame("b", queue, b"b", **facts)], PATIENCE)
        assert broker.depth(queue) == Depth()

    @pytest.mark.parametrize("size", [1_000_001, 50_000_000])
    def test_body_over_the_limit_fails_alone(self, broker, queue, size):
        """A message of the largest size is stored, one of a byte more fails, and is named."""
        broker.declare([QueueSpec(name=queue)])

        with pytest.raises(PublishError) as caught:
            broker.publish([Frame("a", queue, bytes(1_000_000)), Frame("b", queue, bytes(size))], PATIENCE)

        assert (caught.value.failed, caught.value.unsure) == ([1], [])
        assert caught.value.problem == f"a message of {size:,} bytes is over max_body=1,000,000"
        assert broker.depth(queue).ready == 1

    def test_large_body_where_the_option_allows_it(self, stage, queue):
        """With max_body raised 50 MB are stored and fetched as they are, and so is what came before and after."""
        broker = stage.broker(partitions=1, max_body=60_000_000, timeout=PATIENCE)
        subscription = stage.subscribe(broker, queue)
        sent = [b"before", os.urandom(1000) * 50_000, b"after"]

        broker.publish([Frame(f"{index}", queue, body) for index, body in enumerate(sent)], PATIENCE)

        got = take(subscription, queue, 3)
        assert [one.body == body for one, body in zip(got, sent, strict=True)] == [True, True, True]
        assert subscription.ack(got) == []

    def test_unknown_topic_surely_fails(self, broker, queue):
        """A topic that was never made, or was deleted, stores nothing: no frame is unsure, others are stored."""
        broker.declare([QueueSpec(name=queue)])

        with pytest.raises(PublishError) as caught:
            broker.publish([Frame("a", f"{queue}.other", b"a"), Frame("b", queue, b"b")], PATIENCE)

        assert (caught.value.failed, caught.value.unsure) == ([0], [])
        assert broker.depth(queue).ready == 1

    def test_workers_all_get_their_part(self, stage, queue):
        """A small batch, and single pushes, go to all partitions alike."""
        broker = stage.broker(partitions=4)
        broker.declare([QueueSpec(name=queue)])

        push(broker, queue, *range(8))
        for number in range(8):
            push(broker, queue, number)

        assert [end for _, end in stage.marks(queue, 4)] == [4, 4, 4, 4]

    def test_bulk_goes_to_all_in_the_end(self, stage, queue):
        """Batch after batch go to one partition each, and to each of them about as often."""
        broker = stage.broker(partitions=4)
        broker.declare([QueueSpec(name=queue)])

        for _ in range(40):
            push(broker, queue, *range(100))

        ends = [end for _, end in stage.marks(queue, 4)]
        assert sum(ends) == 4000
        assert max(ends) <= 1.2 * min(ends)

    def test_threads_publish_at_once(self, stage, broker, queue):
        """Each thread's call returns when its own frames are stored, and nothing is lost or doubled."""
        subscription = stage.subscribe(broker, queue)
        threads = [
            threading.Thread(target=lambda start=start: [push(broker, queue, start + n) for n in range(50)])
            for start in range(0, 400, 50)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)

        assert sorted(map(int, bodies(take(subscription, queue, 400)))) == list(range(400))

    def test_closed_broker(self, broker, queue):
        """After close every call says so; closing again is harmless."""
        broker.close()
        broker.close()

        for call in (
            lambda: push(broker, queue, 1),
            lambda: broker.declare([QueueSpec(name=queue)]),
            lambda: broker.depth(queue),
            lambda: broker.subscribe([QueueSpec(name=queue)], {}, lambda gone: None),
        ):
            with pytest.raises(Closed, match="broker 'kafka' is closed"):
                call()


class TestFetching:
    """From records to deliveries."""

    def test_pushed_before_the_first_worker(self, stage, broker, queue):
        """A group that never was begins at the oldest message."""
        broker.declare([QueueSpec(name=queue)])
        push(broker, queue, 1, 2, 3)

        got = take(stage.subscribe(broker, queue), queue, 3)

        assert sorted(bodies(got)) == ["1", "2", "3"]
        assert {(one.queue, one.deaths) for one in got} == {(queue, 0)}

    def test_queue_that_was_not_subscribed(self, stage, broker, queue):
        """Fetching from it is an error that names it."""
        with pytest.raises(QueueGone, match="'nope'"):
            stage.subscribe(broker, queue).fetch({"nope": 1}, 0.0)

    def test_credit_bounds_what_is_unsettled(self, stage, broker, queue):
        """No more than its credit is held of a queue, however much is wanted."""
        subscription = stage.subscribe(broker, queue, credit={queue: 3})
        push(broker, queue, *range(5))

        held = take(subscription, queue, 3)
        assert subscription.fetch({queue: 5}, 0.3) == []
        subscription.ack(held[:1])

        assert len(take(subscription, queue, 1)) == 1
        assert subscription.fetch({queue: 5}, 0.3) == []

    def test_foreign_records(self, stage, broker, queue):
        """Whatever others write to the topic is handed out as it is, an empty record as an empty body."""
        subscription = stage.subscribe(broker, queue)
        stage.produce(queue, b"not an envelope", None, headers={"odd": "1"})

        assert sorted(bodies(take(subscription, queue, 2))) == ["", "not an envelope"]

    def test_shut_queue_brings_nothing_until_it_is_wanted(self, stage, broker, queue):
        """A queue that is shut is read no more; what came meanwhile is there once it is wanted again."""
        other = f"{queue}.other"
        subscription = stage.subscribe(broker, queue, other)
        push(broker, other, "up")
        assert bodies(take(subscription, other, 1)) == ["up"]

        subscription.shut([queue])
        push(broker, queue, *range(20))
        push(broker, other, *range(5))
        assert len(take(subscription, other, 5)) == 5

        assert sorted(map(int, bodies(take(subscription, queue, 20)))) == list(range(20))

    def test_reading_ahead_is_bounded(self, stage, broker, queue, monkeypatch):
        """A slow worker's partitions are paused and go on, and each message comes once, also of queues that aren't slow."""
        monkeypatch.setattr(holdings, "AHEAD", 20)
        other = f"{queue}.other"
        subscription = stage.subscribe(broker, queue, other)
        for start in range(0, 2000, 100):
            push(broker, queue, *range(start, start + 100))
        push(broker, other, *range(50))

        assert sorted(map(int, bodies(take(subscription, other, 50)))) == list(range(50))
        got = []
        while len(got) < 2000:
            deliveries = subscription.fetch({queue: 50}, PATIENCE)
            assert subscription.ack(deliveries) == []
            got += bodies(deliveries)
        assert sorted(map(int, got)) == list(range(2000))

    def test_wake_and_close(self, stage, broker, queue):
        """A blocked fetch returns when woken, and when the subscription is closed, which later calls are told."""
        subscription = stage.subscribe(broker, queue)
        results = []
        for end in (subscription.wake, subscription.close):
            thread = threading.Thread(target=lambda: results.append(subscription.fetch({queue: 1}, 600.0)))
            thread.start()
            end()
            thread.join(PATIENCE)
        assert results == [[], []]
        with pytest.raises(Closed):
            subscription.fetch({queue: 1}, 0.0)


class TestSettling:
    """Single acks on a log."""

    def test_only_the_unfinished_comes_back(self, stage, broker, queue):
        """What was acknowledged behind and beyond an unfinished message doesn't come again, though offsets can't say so."""
        first = stage.subscribe(broker, queue)
        push(broker, queue, *range(200))
        got = take(first, queue, 200)
        unfinished = [one for one in got if int(one.body) % 50 == 7]

        assert first.ack([one for one in got if one not in unfinished]) == []
        first.close()
        second = stage.subscribe(broker, queue)
        again = take(second, queue, 4)

        assert sorted(map(int, bodies(again))) == [7, 57, 107, 157]
        push(broker, queue, "witness")
        assert bodies(take(second, queue, 2, 2.0)) == ["witness"]

    def test_released_goes_before_later_ones(self, stage, queue):
        """A message given back is handed out again, in its order, before what was read after it."""
        broker = stage.broker(partitions=1)
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, *range(6))
        held = take(subscription, queue, 3)

        assert subscription.release(held[::-1]) == []

        again = take(subscription, queue, 6)
        assert bodies(again) == ["0", "1", "2", "3", "4", "5"]
        assert subscription.ack(held) == held
        assert subscription.ack(again) == []
        assert broker.depth(queue) == Depth()

    def test_settling_twice(self, stage, broker, queue):
        """A second ack, and a release after it, are told to be late."""
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, 1)
        held = take(subscription, queue, 1)

        assert subscription.ack(held) == []
        assert subscription.ack(held) == held
        assert subscription.release(held) == held

    def test_released_at_close_is_undone(self, stage, broker, queue):
        """What was given back and not taken again is the next worker's."""
        first = stage.subscribe(broker, queue)
        push(broker, queue, 1)
        first.release(take(first, queue, 1))
        first.close()

        assert bodies(take(stage.subscribe(broker, queue), queue, 1)) == ["1"]


class TestOrder:
    """Keys, and queues of one partition."""

    def test_keys_keep_their_order(self, stage, broker, queue):
        """Frames of one key are fetched in the order they were published, in batches and one by one."""
        subscription = stage.subscribe(broker, queue)
        frames = [Frame(f"{n}", queue, b"%d" % n, key=f"key {n % 5}") for n in range(100)]
        broker.publish(frames[:50], PATIENCE)
        for frame in frames[50:]:
            broker.publish([frame], PATIENCE)

        got = list(map(int, bodies(take(subscription, queue, 100))))

        for rest in range(5):
            assert [n for n in got if n % 5 == rest] == list(range(rest, 100, 5))

    def test_one_partition_keeps_all_in_order(self, stage, queue):
        """With partitions=1 a queue is fetched as it was published."""
        broker = stage.broker(partitions=1)
        subscription = stage.subscribe(broker, queue)
        for start in range(0, 300, 100):
            push(broker, queue, *range(start, start + 100))

        assert list(map(int, bodies(take(subscription, queue, 300)))) == list(range(300))


class TestDelays:
    """Messages that wait."""

    def test_never_early_and_in_time(self, stage, broker, queue):
        """Each comes when it is due, the shorter delay first, however they were published."""
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, "up", delay=0.01)
        take(subscription, queue, 1)
        started = time.time()
        for delay in (1.2, 0.4, 0.8, 0.0):
            push(broker, queue, delay, delay=delay)

        came = []
        for _ in range(4):
            (one,) = take(subscription, queue, 1)
            came.append((one.body.decode(), time.time() - started))

        assert [body for body, _ in came] == ["0.0", "0.4", "0.8", "1.2"]
        assert all(after >= float(body) for body, after in came)

    def test_any_worker_sends_them_on(self, stage, broker, queue):
        """A delayed message outlives the worker that had it in sight, and keeps its key."""
        first = stage.subscribe(broker, queue)
        push(broker, queue, "late", delay=1.0, key="k")
        until(lambda: broker.depth(queue) == Depth(delayed=1))
        first.close()

        other = stage.broker()
        second = stage.subscribe(other, queue)

        assert bodies(take(second, queue, 1)) == ["late"]
        assert other.depth(queue) == Depth(running=1)

    def test_more_than_is_in_sight(self, stage, broker, queue, monkeypatch):
        """Long delays ahead don't make short ones late: what fills the sight steps down, and comes in its time as well."""
        monkeypatch.setattr(ladder, "IN_SIGHT", 10)
        subscription = stage.subscribe(broker, queue)
        started = time.time()
        push(broker, queue, *["long"] * 40, delay=4.0)
        push(broker, queue, "short", delay=1.5)

        (short,) = take(subscription, queue, 1)
        after = time.time() - started
        rest = take(subscription, queue, 40)

        assert short.body == b"short"
        assert 1.5 <= after < 4.0
        assert bodies(rest) == ["long"] * 40
        assert time.time() - started >= 4.0

    def test_foreign_record_on_the_delay_topic(self, stage, broker, queue):
        """One that doesn't say when it is due, or nonsense, is sent on at once."""
        subscription = stage.subscribe(broker, queue)
        stage.produce(delay_topic(queue), b"plain", partition=5)
        stage.produce(delay_topic(queue), b"odd", partition=5, headers={"boost-due": "tomorrow"})

        assert sorted(bodies(take(subscription, queue, 2))) == ["odd", "plain"]

    @pytest.mark.parametrize(
        ("delay", "rung"), [(0.001, 0), (7.9, 0), (8, 1), (63, 1), (65, 2), (3600, 3), (86400, 5), (1e9, 7)]
    )
    def test_where_a_delay_waits(self, delay, rung):
        """Each rung of the ladder is for delays of a range, the last one for all that are longer."""
        assert ladder.rung_of(delay) == rung


class TestInspection:
    """Counting and emptying."""

    def test_depth(self, stage, broker, queue):
        """What waits, is delayed and runs here is told apart; what was acknowledged a moment ago isn't counted."""
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, *range(10))
        push(broker, queue, *range(3), delay=600)
        held = take(subscription, queue, 4)
        subscription.ack(held[:2])

        assert broker.depth(queue) == Depth(ready=6, delayed=3, running=2)
        assert stage.broker().depth(queue) == Depth(ready=8, delayed=3)  # others can't tell what runs

    def test_depth_of_a_queue_never_heard_of(self, broker, queue):
        """It is empty."""
        assert broker.depth(queue) == Depth()

    def test_purge(self, stage, broker, queue):
        """All that waits or is delayed is gone, read ahead or not; what runs isn't, and what comes later neither."""
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, *range(50))
        push(broker, queue, *range(5), delay=600)
        held = take(subscription, queue, 2)

        assert broker.purge(queue) == 53
        assert broker.depth(queue) == Depth(running=2)
        push(broker, queue, "later")
        assert bodies(take(subscription, queue, 2, 2.0)) == ["later"]
        assert subscription.ack(held) == []

    def test_purge_by_another_process(self, stage, broker, queue, monkeypatch):
        """A worker elsewhere drops what it had read ahead, whether its partitions are paused or not."""
        subscription = stage.subscribe(broker, queue)
        other = stage.broker()
        for ahead in (1000, 20):
            monkeypatch.setattr(holdings, "AHEAD", ahead)
            push(broker, queue, *range(500))
            subscription.ack(take(subscription, queue, 1))
            subscription.shut([queue])
            other.purge(queue)
            until(lambda: subscription._holdings.buffer.waiting(queue) == 0)
            push(broker, queue, "later")
            got = take(subscription, queue, 1)
            assert bodies(got) == ["later"]
            subscription.ack(got)

    def test_what_is_done_is_deleted(self, stage, broker, queue):
        """When a worker ends nothing of what is done is left, so that a group that forgot its place doesn't do it again."""
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, *range(20))
        subscription.ack(take(subscription, queue, 20))
        subscription.close()

        assert all(start == end for start, end in stage.marks(queue, 4))

    def test_trim_off(self, stage, queue):
        """With trim=False the messages stay for others to read, and aren't run again."""
        broker = stage.broker(trim=False)
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, *range(20))
        subscription.ack(take(subscription, queue, 20))
        subscription.close()

        assert sum(end - start for start, end in stage.marks(queue, 4)) == 20
        assert broker.depth(queue) == Depth()

    def test_doctor(self, stage, broker, queue):
        """The check names the cluster, and topics with one copy, and those that forget."""
        broker.declare([QueueSpec(name=queue)])
        stage.broker(retention="7d").declare([QueueSpec(name=f"{queue}.short")])

        findings = list(check(Examined(broker=broker, plans=(Plan(queue), Plan(f"{queue}.short")))))

        assert [one.run for one in boost_checks()] == ["boost_broker_kafka.checks:check"]
        assert [(one.level, one.text) for one in findings[:4]] == [
            (Level.OK, f"Kafka, 1 server, group '{stage.group}', acks=all, idempotent"),
            (Level.WARNING, f"topic '{queue}' has one copy: what its server's disk loses is lost"),
            (Level.WARNING, f"topic '{queue}.short' has one copy: what its server's disk loses is lost"),
            (Level.WARNING, f"topic '{queue}.short' deletes messages after 168 h, done or not"),
        ]
