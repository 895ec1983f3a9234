"""Partitions that change hands between workers, within one process."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import Counter

import pytest
from boost_broker_kafka import cluster, housekeeping
from boost_core.plugin import BrokerUnavailable, Depth, Frame, QueueGone, QueueSpec
from confluent_kafka.admin import NewPartitions
from kafka_stage import PATIENCE, bodies, push, push_surely, take, until


class TestPartitionsChangeHands:
    """Several workers, and topics that change under them."""

    def test_quick_jobs_run_once(self, stage, queue):
        """Workers that join and leave in the middle make nothing run twice, and nothing is left out."""
        brokers = [stage.broker() for _ in range(3)]
        subscriptions = [stage.subscribe(brokers[0], queue)]
        push(brokers[0], queue, *range(600))
        ran = Counter()

        def work(subscription):
            while sum(ran.values()) < 600 and not subscription.closed:
                for one in subscription.fetch({queue: 1}, 0.2):
                    time.sleep(0.002)
                    ran[one.body] += 1
                    assert subscription.ack([one]) == []

        threads = []
        for broker in brokers:
            if threads:
                subscriptions.append(stage.subscribe(broker, queue))
            threads.append(threading.Thread(target=work, args=(subscriptions[-1],)))
            threads[-1].start()
            want = 100 * len(threads)
            until(lambda want=want: sum(ran.values()) > want)
        for thread in threads:
            thread.join(PATIENCE)

        assert ran == Counter({b"%d" % n: 1 for n in range(600)})

    def test_what_still_runs_is_fenced(self, stage, queue):
        """A partition that goes to another worker takes its running jobs along: they are lost here, and run there."""
        gone = []
        first_broker, second_broker = stage.broker(handover=0.1), stage.broker()
        first = stage.subscribe(first_broker, queue, lost=gone.extend)
        push(first_broker, queue, *range(16))
        held = take(first, queue, 16)

        second = stage.subscribe(second_broker, queue)
        there = take(second, queue, 8)

        lost = [one for one in held if one in gone]
        assert sorted(bodies(lost)) == sorted(bodies(there))
        assert first.ack(held) == lost
        assert second.ack(there) == []
        until(lambda: second_broker.depth(queue) == Depth())

    @pytest.mark.parametrize("count", [0, 1], ids=["at once", "at work"])
    def test_closing_leaves_the_group(self, stage, broker, queue, count):
        """Who closes isn't in the group any more, so that nobody waits for it."""
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, 1)
        take(subscription, queue, count)

        subscription.close()

        assert until(lambda: stage.members() + 1) == 1

    def test_handover_waits_for_running_jobs(self, stage, queue):
        """A job that ends in time is acknowledged where it ran, and isn't run again."""
        gone = []
        first_broker, second_broker = stage.broker(handover=PATIENCE), stage.broker()
        first = stage.subscribe(first_broker, queue, lost=gone.extend)
        push(first_broker, queue, *range(8))
        held = take(first, queue, 8)
        second = stage.subscribe(second_broker, queue)
        assert second.fetch({queue: 1}, 1.5) == []

        assert first.ack(held) == []
        push(first_broker, queue, *itertools.repeat("new", 8))

        assert set(bodies(take(second, queue, 4))) == {"new"}
        assert gone == []

    def test_paused_partitions_go_and_come_back(self, stage, queue):
        """Partitions that were paused here, went to another worker and come back are read again."""
        other = f"{queue}.other"
        first = stage.subscribe(stage.broker(), queue, other)
        push(stage.broker(), other, "up")
        first.ack(take(first, other, 1))
        first.shut([queue])
        push(stage.broker(), queue, *range(8))
        push(stage.broker(), other, "paused by now")
        first.ack(take(first, other, 1))
        second = stage.subscribe(stage.broker(), queue, other)
        second.ack(take(second, queue, 4))
        first.ack(take(first, queue, 4))

        second.close()
        new = set(map(str, range(8, 16)))
        push(stage.broker(), queue, *new)

        came = set()
        until(lambda: came.update(bodies(first.fetch({queue: 16}, 0.5))) or new <= came)

    def test_group_of_others(self, stage, queue):
        """A group that other programs are in with their own way of sharing can't be joined, and that is said."""
        broker = stage.broker()
        broker.declare([QueueSpec(name=queue)])
        with stage.stranger(queue):
            subscription = stage.subscribe(broker, queue)

            with pytest.raises(BrokerUnavailable) as caught:
                take(subscription, queue, 1)
        assert str(caught.value) == (
            f"broker 'kafka': group '{stage.group}' has members that aren't workers of boost\n  Set another group."
        )

    def test_partitions_are_added(self, stage, queue, monkeypatch):
        """New partitions of a topic are found by workers, with what came before they were found, and by publishers."""
        broker = stage.broker(partitions=1)
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, "old")
        assert bodies(take(subscription, queue, 1)) == ["old"]

        stage.admin.create_partitions([NewPartitions(queue, 3)])[queue].result(PATIENCE)
        stage.marks(queue, 3)
        stage.produce(queue, b"new", partition=2)

        assert bodies(take(subscription, queue, 1)) == ["new"]
        monkeypatch.setattr(cluster, "FRESH_SECONDS", 0.0)
        until(lambda: push(broker, queue, *range(3)) or stage.marks(queue, 2)[1][1])

    @pytest.mark.parametrize(("count", "looks"), [(10, math.inf), (30, 0.1)], ids=["shorter", "longer"])
    def test_topic_is_made_again(self, stage, queue, monkeypatch, count, looks):
        """All of the new topic is run by a worker that did as much of the old one, whether it has more messages or less."""
        monkeypatch.setattr(housekeeping, "LOG_SECONDS", looks)
        broker = stage.broker(partitions=1)
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, *range(20))
        old = take(subscription, queue, 20)
        assert subscription.ack(old[1:]) == []

        make_again(stage, queue, count)
        ran = set()

        def work():
            for one in subscription.fetch({queue: 100}, 0.2):
                if subscription.ack([one]) == []:
                    ran.add(one.body.decode())
            return len(ran) == count

        until(work)
        assert ran == {f"new{number}" for number in range(count)}
        assert subscription.ack(old[:1]) == old[:1]
        until(lambda: broker.depth(queue) == Depth())

    def test_topic_is_made_again_unseen(self, stage, queue, monkeypatch):
        """What a worker that hasn't noticed it committed doesn't count: nothing is deleted, and the next one runs it all."""
        monkeypatch.setattr(housekeeping, "LOG_SECONDS", math.inf)
        broker = stage.broker(partitions=1)
        subscription = stage.subscribe(broker, queue)
        push(broker, queue, *range(20))
        subscription.ack(take(subscription, queue, 20))
        subscription.write(PATIENCE)

        make_again(stage, queue, 30)
        subscription.ack(take(subscription, queue, 10))
        subscription.write(PATIENCE)
        assert broker.depth(queue) == Depth(ready=30)
        subscription.close()
        subscription = stage.subscribe(broker, queue)

        assert bodies(take(subscription, queue, 30)) == [f"new{number}" for number in range(30)]

    def test_topic_is_deleted(self, stage, broker, queue):
        """Its queue is gone for the worker, once, and the other one goes on."""
        other = f"{queue}.other"
        subscription = stage.subscribe(broker, queue, other)
        push(broker, queue, 1)
        take(subscription, queue, 1)

        stage.admin.delete_topics([queue])[queue].result(PATIENCE)

        with pytest.raises(QueueGone) as caught:
            take(subscription, queue, 1)
        assert str(caught.value) == f"broker 'kafka': queue '{queue}' no longer exists."
        push(broker, other, "goes on")
        assert bodies(take(subscription, other, 1)) == ["goes on"]

    def test_deleted_topic_that_comes_again_is_the_others(self, stage, broker, queue):
        """A worker that was told that its queue is gone takes no part of it any more, so that the others get all of it."""
        first = stage.subscribe(broker, queue)
        push(broker, queue, 1)
        take(first, queue, 1)
        stage.admin.delete_topics([queue])[queue].result(PATIENCE)
        with pytest.raises(QueueGone):
            take(first, queue, 1)

        second = stage.subscribe(stage.broker(), queue)
        push(broker, queue, *range(16))

        assert sorted(map(int, bodies(take(second, queue, 16)))) == list(range(16))


def make_again(stage, queue, count):
    """Delete a queue's topic, and have another process make it and push to it."""
    stage.admin.delete_topics([queue])[queue].result(PATIENCE)
    broker = stage.broker(partitions=1)

    def made():
        try:
            broker.declare([QueueSpec(name=queue)])
        except BrokerUnavailable:  # it is still being deleted
            return False
        return True

    until(made)
    push_surely(broker, [Frame("id", queue, b"new%d" % number) for number in range(count)])
