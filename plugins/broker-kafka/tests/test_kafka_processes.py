"""The broker between real processes: kills, stops and forks."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter

import pytest
from boost_core.plugin import QueueSpec
from kafka_stage import PATIENCE, bodies, push, take, until

HOLD = """
gone = []
subscription = subscribe(gone.extend)
held = take(subscription, queue, 16)
say("holds", len(held))
"""
FORK = """
child = os.fork()
if child == 0:
    broker.after_fork()
    say("forked")
    time.sleep(120)
    os._exit(0)
"""
SLEEP = "time.sleep(120)\n"


@pytest.fixture
def broker(stage, queue):
    """An opened broker whose sessions are short, with the queue."""
    broker = stage.broker(session_timeout=3)
    broker.declare([QueueSpec(name=queue)])
    return broker


def subscribe(broker, queue):
    """Return a subscription to the queue."""
    return broker.subscribe([QueueSpec(name=queue)], {}, lambda gone: None)


@pytest.mark.parametrize("code", [HOLD + SLEEP, HOLD + FORK + SLEEP], ids=["alone", "forked"])
def test_killed_worker_is_taken_over(stage, broker, queue, children, code):
    """What a worker killed with -9 ran goes to another within the bound, though a child it forked lives on."""
    child = children(code, stage.url, stage.group, queue, 3)
    push(broker, queue, *range(16))
    assert child.stdout.readline() == "holds 16\n"
    if code != HOLD + SLEEP:
        assert child.stdout.readline() == "forked\n"
    child.kill()

    subscription = subscribe(broker, queue)
    stage.closes(subscription)
    killed = time.monotonic()
    got = take(subscription, queue, 16)

    assert sorted(map(int, bodies(got))) == list(range(16))
    assert time.monotonic() - killed < broker.spec.limits.takeover
    assert subscription.ack(got) == []


def test_killed_workers_lose_nothing(stage, broker, queue, children):
    """Workers killed in the middle of their work leave everything to do that they hadn't acknowledged."""
    code = """
subscription = subscribe()
say("ready")
while True:
    for one in subscription.fetch({queue: 8}, 1.0):
        say(one.body.decode())
        subscription.ack([one])
"""
    push(broker, queue, *range(400))
    ran = Counter()
    for _ in range(2):
        worker = children(code, stage.url, stage.group, queue, 3)
        assert worker.stdout.readline() == "ready\n"
        for _ in range(60):
            ran[int(worker.stdout.readline())] += 1
        worker.kill()
        ran.update(map(int, worker.communicate()[0].split()))
    subscription = subscribe(broker, queue)
    stage.closes(subscription)
    while len(ran) < 400:
        (one,) = take(subscription, queue, 1)
        ran[int(one.body)] += 1
        subscription.ack([one])

    assert set(ran) == set(range(400))
    assert sum(count - 1 for count in ran.values()) <= 2 * broker.spec.limits.ack_lag


def test_stopped_worker_is_fenced(stage, broker, queue, children):
    """A worker that stood still for longer than its session loses what it ran, and its late ack is refused."""
    code = HOLD + "sys.stdin.readline()\nsay('fenced', len(subscription.ack(held)), len(gone))\n"
    child = children(code, stage.url, stage.group, queue, 3)
    push(broker, queue, *range(16))
    assert child.stdout.readline() == "holds 16\n"
    os.kill(child.pid, signal.SIGSTOP)
    subscription = subscribe(broker, queue)
    stage.closes(subscription)

    got = take(subscription, queue, 16)
    child.stdin.write("go on\n")
    child.stdin.flush()
    os.kill(child.pid, signal.SIGCONT)

    assert len(got) == 16
    assert child.stdout.readline() == "fenced 16 16\n"
    assert subscription.ack(got) == []


def test_forked_child_starts_anew(stage, broker, queue, children):
    """A child forked from a process with clients of all kinds makes its own, ends in peace, and the parent goes on."""
    code = """
subscription = subscribe()
push(broker, queue, "parent's first")
assert bodies(take(subscription, queue, 1)) == ["parent's first"]
child = os.fork()
if child == 0:
    broker.after_fork()
    fresh = make_broker(url, group=group)
    fresh.open()
    fresh.declare([QueueSpec(name=queue)])
    push(fresh, queue, "child's")
    fresh.close()
    del broker, subscription
    import gc; gc.collect()
    sys.exit(0)
say("child", os.waitpid(child, 0)[1])
say(*bodies(take(subscription, queue, 1)))
push(broker, queue, "parent's second")
say(*bodies(take(subscription, queue, 1)))
subscription.close()
broker.close()
"""
    parent = children(code, stage.url, stage.group, queue)

    assert parent.communicate(timeout=PATIENCE)[0].splitlines() == ["child 0", "child's", "parent's second"]
    assert parent.returncode == 0


def test_consumers_share_exactly_once(stage, broker, queue, children):
    """Four processes take a thousand messages; with nobody dying each message comes once."""
    code = """
subscription = subscribe()
say("ready")
for line in sys.stdin:
    for one in subscription.fetch({queue: 16}, 0.1):
        subscription.ack([one])
        say(one.body.decode())
    say("-")
subscription.close()
broker.close()
"""
    consumers = [children(code, stage.url, stage.group, queue) for _ in range(4)]
    for consumer in consumers:
        assert consumer.stdout.readline() == "ready\n"
    push(broker, queue, *range(1000))
    got = [Counter() for _ in consumers]
    total = lambda: sum(sum(one.values()) for one in got)

    def drive(consumer, mine):
        while total() < 1000:
            consumer.stdin.write("go\n")
            consumer.stdin.flush()
            while (line := consumer.stdout.readline()) != "-\n":
                mine[int(line)] += 1

    threads = [threading.Thread(target=drive, args=pair) for pair in zip(consumers, got, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    leftovers = [consumer.communicate(timeout=PATIENCE)[0] for consumer in consumers]

    assert sum(got, Counter()) == Counter(range(1000))
    assert (leftovers, [consumer.returncode for consumer in consumers]) == ([""] * 4, [0] * 4)


def test_killed_publisher_loses_nothing(stage, broker, queue, children):
    """Whatever a publisher was told is stored outlives its kill -9."""
    code = "import itertools\nfor n in itertools.count():\n    push(broker, queue, n)\n    say(n)\n"
    publisher = children(code, stage.url, stage.group, queue)
    for _ in range(200):
        publisher.stdout.readline()
    publisher.kill()
    last = max([199, *map(int, publisher.communicate()[0].split())])
    subscription = subscribe(broker, queue)
    stage.closes(subscription)

    got = set()
    until(lambda: got.update(map(int, bodies(subscription.fetch({queue: 100}, 0.5)))) or got >= set(range(last + 1)))

    assert got <= set(range(last + 2))  # one more may be stored that it wasn't told of
