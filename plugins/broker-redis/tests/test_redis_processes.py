"""Both brokers between real processes: kills, stops, forks, and sharing."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from boost_core.plugin import Depth
from redis_stage import (
    HOLD,
    SLEEP,
    Background,
    bodies,
    build_broker,
    client,
    fetch,
    push,
    subscribe,
    take,
    until,
    waiters,
)

LEASE = 0.6


@pytest.fixture
def short(broker):
    """A broker of the same kind whose workers have a short lease."""
    short = build_broker(broker.spec.name, broker.options.url.reveal(), lease=LEASE)
    yield short
    short.close()


def taken_over(broker, subscription, queue, count):
    """Return what another worker held, within the published bound."""
    got = take(subscription, queue, count, broker.spec.limits.takeover)
    assert len(got) == count
    return got


def test_push_wakes_another_process(broker, queue, children):
    """A blocked fetch in another process returns once something is published, without looking by itself."""
    code = (
        "import boost_broker_redis.subscription as module\nmodule.LOOK_SECONDS = 1e9\n"
        "subscription = subscribe(broker, queue)\nsay('ready')\n"
        "for _ in range(5):\n"
        "    (got,) = subscription.fetch({queue: 1}, 60.0)\n    say(got.body.decode())\n    subscription.ack([got])\n"
        "subscription.close()\n"
    )
    child = children(code, broker, queue, lease=1e9)
    assert child.stdout.readline() == "ready\n"

    for n in range(5):
        until(lambda: waiters(broker, queue) == 1)
        push(broker, queue, n)
        assert child.stdout.readline() == f"{n}\n"
    assert child.wait(10) == 0


def test_killed_worker_is_taken_over(short, queue, children):
    """Sixteen running jobs of a worker killed with -9 go to another one within the bound, all of them, with one death."""
    push(short, queue, *range(16))
    child = children(HOLD + SLEEP, short, queue, LEASE)
    assert child.stdout.readline() == "holds 16\n"
    subscription = subscribe(short, queue)
    child.kill()

    got = taken_over(short, subscription, queue, 16)

    assert [(one.body, one.deaths) for one in got] == [(b"%d" % n, 1) for n in range(16)]
    assert subscription.ack(got) == []
    assert short.depth(queue) == Depth()
    subscription.close()


def test_each_worker_has_its_own_lease(broker, short, queue, children):
    """A living worker of a long lease keeps its job beside one of a short lease, and takes over a short one's in time."""
    long = subscribe(broker, queue)
    push(broker, queue, "long")
    held = fetch(long, queue)
    child = children("say('ready')\nsys.stdin.readline()\n" + HOLD + SLEEP, short, queue, LEASE)
    assert child.stdout.readline() == "ready\n"
    push(broker, queue, "short")
    child.stdin.write("go on\n")
    child.stdin.flush()
    assert child.stdout.readline() == "holds 1\n"
    looker = subscribe(short, queue)
    child.kill()

    assert bodies(taken_over(short, looker, queue, 1)) == ["short"]
    assert fetch(looker, queue, 1, 2 * LEASE) == []
    assert long.extend(held) == long.ack(held) == []
    looker.close()
    long.close()


def test_a_long_lease_looks_for_the_dead_of_a_short_one(broker, short, queue, children):
    """Jobs of a killed worker go to others by its own lease, though theirs is far longer."""
    push(short, queue, *range(16))
    child = children(HOLD + SLEEP, short, queue, LEASE)
    assert child.stdout.readline() == "holds 16\n"
    child.kill()
    looker = subscribe(broker, queue)

    got = take(looker, queue, 16, broker.options.lease - 1)

    assert [(one.body, one.deaths) for one in got] == [(b"%d" % n, 1) for n in range(16)]
    assert looker.ack(got) == []
    looker.close()


def test_killed_worker_that_held_many(short, queue, children):
    """However many jobs a killed worker ran, another one takes all of them over within the bound."""
    push(short, queue, *range(400))
    hold = "subscription = subscribe(broker, queue)\nheld = []\n"
    hold += "while len(held) < 400:\n    held += subscription.fetch({queue: 400}, 10.0)\nsay('holds', len(held))\n"
    child = children(hold + SLEEP, short, queue, LEASE)
    assert child.stdout.readline() == "holds 400\n"
    subscription = subscribe(short, queue)
    child.kill()

    got = taken_over(short, subscription, queue, 400)

    assert {one.deaths for one in got} == {1}
    assert subscription.ack(got) == []
    subscription.close()


def test_killed_worker_with_a_surviving_child(short, queue, children):
    """A child that the dead worker forked, and that lives on, keeps nothing alive: take-over is as fast."""
    push(short, queue, *range(16))
    fork = "if os.fork() == 0:\n    broker.after_fork()\n    say('forked')\n    time.sleep(60)\n"
    child = children(HOLD + fork + SLEEP, short, queue, LEASE)
    assert child.stdout.readline() == "holds 16\n"
    assert child.stdout.readline() == "forked\n"
    subscription = subscribe(short, queue)
    child.kill()

    assert {one.deaths for one in taken_over(short, subscription, queue, 16)} == {1}
    subscription.close()


def test_child_forked_behind_pythons_back(short, queue, children):
    """A child forked by C code keeps the connections open, and with them no message and no wake-up."""
    push(short, queue, *range(16))
    fork = "import ctypes\nif ctypes.CDLL(None).fork() == 0:\n    time.sleep(60)\nsay('forked')\n"
    wait = "subscription.fetch({queue: 1}, 60.0)\n"
    child = children(HOLD + fork + wait + SLEEP, short, queue, LEASE)
    assert child.stdout.readline() == "holds 16\n"
    assert child.stdout.readline() == "forked\n"
    until(lambda: waiters(short, queue) == 1)
    child.kill()
    child.wait(10)
    subscription = subscribe(short, queue)

    taken = taken_over(short, subscription, queue, 16)
    push(short, queue, "more")
    assert bodies(taken_over(short, subscription, queue, 1)) == ["more"]
    assert subscription.ack(taken) == []
    subscription.close()


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_idle_workers_that_were_killed_are_forgotten(servers, kind, queue, children):
    """Workers of a stream that were killed after their last job don't stay among its consumers; the living ones go on."""
    short = build_broker("redis-stream", servers(kind).url, lease=0.2)
    subscription, idle = subscribe(short, queue), subscribe(short, queue)
    for one in (subscription, idle):
        push(short, queue, "x")
        assert one.ack(fetch(one, queue)) == []
    work = (
        "subscription = subscribe(broker, queue)\nsubscription.ack(subscription.fetch({queue: 1}, 10.0))\nsay('idle')\n"
    )
    for _ in range(3):
        push(short, queue, "x")
        child = children(work + SLEEP, short, queue, 0.2)
        assert child.stdout.readline() == "idle\n"
        child.kill()
        child.wait(10)

    with client(short.options.url.reveal()) as asking:
        until(
            lambda: (
                fetch(subscription, queue) == []
                and len(asking.xinfo_consumers(f"{short.stem(queue)}stream", "boost")) < 3
            )
        )

    push(short, queue, "more")
    assert bodies(got := fetch(idle, queue)) == ["more"]
    assert idle.ack(got) == []
    for each in (subscription, idle, short):
        each.close()


def test_each_death_counts(short, queue, children):
    """A message whose workers die one after the other comes with as many deaths."""
    push(short, queue, "deadly")
    for _ in range(2):
        child = children(HOLD + SLEEP, short, queue, LEASE)
        assert child.stdout.readline() == "holds 1\n"
        child.kill()
    subscription = subscribe(short, queue)

    (got,) = taken_over(short, subscription, queue, 1)

    assert got.deaths == 2
    assert subscription.ack([got]) == []
    push(short, queue, "innocent")
    assert fetch(subscription, queue)[0].deaths == 0
    subscription.close()


def test_stopped_worker_is_fenced(short, queue, children):
    """A worker stopped past its lease loses its messages, and its late ack of what others run is refused."""
    push(short, queue, *range(10))
    late = "sys.stdin.readline()\nsay('fenced', len(subscription.ack(held)))\n"
    child = children(HOLD + late, short, queue, LEASE)
    assert child.stdout.readline() == "holds 10\n"
    os.kill(child.pid, signal.SIGSTOP)
    subscription = subscribe(short, queue)

    got = taken_over(short, subscription, queue, 10)
    os.kill(child.pid, signal.SIGCONT)
    child.stdin.write("go on\n")
    child.stdin.flush()

    assert child.stdout.readline() == "fenced 10\n"
    assert short.depth(queue).running == 10
    assert subscription.ack(got) == []
    subscription.close()


def test_a_stopped_waiter_holds_up_for_a_moment(short, queue, children):
    """A message of which only a stopped worker was told is found by the others, who look by themselves."""
    child = children("subscription = subscribe(broker, queue)\nsay('ready')\n" + HOLD + SLEEP, short, queue, LEASE)
    assert child.stdout.readline() == "ready\n"
    until(lambda: waiters(short, queue) == 1)
    os.kill(child.pid, signal.SIGSTOP)
    subscription = subscribe(short, queue)
    waiting = Background(fetch, subscription, queue, 1, 60.0)
    until(lambda: waiters(short, queue) == 2)

    push(short, queue, "x")

    assert bodies(waiting.join()) == ["x"]
    subscription.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of a test run don't touch what is tested
def test_forked_child_starts_anew(broker, queue):
    """A forked child can't use its parent's broker, but one of its own; the parent's connections are unharmed."""
    subscription = subscribe(broker, queue)
    push(broker, queue, "parent's")
    held = fetch(subscription, queue)
    child = os.fork()
    if child == 0:
        try:
            broker.after_fork()
            fresh = build_broker(broker.spec.name, broker.options.url.reveal())
            push(fresh, queue, "child's")
            fresh.close()
        except BaseException:
            os._exit(1)
        os._exit(0)

    assert os.waitpid(child, 0)[1] == 0
    got = take(subscription, queue, 1)
    assert bodies(got) == ["child's"]
    assert subscription.extend(held) == []
    assert subscription.ack([*held, *got]) == []
    subscription.close()


def test_consumers_share_exactly_once(broker, queue, children):
    """Four consumers take 1,000 messages, each exactly once."""
    code = (
        "subscription = subscribe(broker, queue)\nsay('ready')\nsys.stdin.readline()\n"
        "while deliveries := subscription.fetch({queue: 16}, 0.5):\n"
        "    say(*(one.body.decode() for one in deliveries))\n"
        "    assert subscription.ack(deliveries) == []\n"
        "subscription.close()\n"
    )
    consumers = [children(code, broker, queue) for _ in range(4)]
    push(broker, queue, *range(1000))
    for consumer in consumers:
        assert consumer.stdout.readline() == "ready\n"
    for consumer in consumers:
        consumer.stdin.write("go\n")
        consumer.stdin.flush()

    got = Counter(word for consumer in consumers for word in consumer.communicate(timeout=60)[0].split())

    assert got == Counter(map(str, range(1000)))
    assert [consumer.returncode for consumer in consumers] == [0] * 4
    assert broker.depth(queue) == Depth()


def test_many_killed_workers(short, queue, children):
    """Workers killed in the middle of fetching and settling lose nothing."""
    code = (
        "subscription = subscribe(broker, queue)\nsay('ready')\n"
        "while True:\n"
        "    deliveries = subscription.fetch({queue: 5}, 1.0)\n"
        "    subscription.replace([(one, Frame('i', queue + '-done', one.body)) for one in deliveries[:3]])\n"
        "    subscription.release(deliveries[3:])\n"
    )
    push(short, queue, *range(300))
    for _ in range(4):
        worker = children(code, short, queue, LEASE)
        assert worker.stdout.readline() == "ready\n"
        until(lambda before=short.depth(f"{queue}-done").ready: short.depth(f"{queue}-done").ready > before)
        worker.kill()
        worker.wait(10)
    done = bodies(short.peek(f"{queue}-done", 1000))
    subscription = subscribe(short, queue)
    left = bodies(take(subscription, queue, 300 - len(done)))

    assert sorted(map(int, [*left, *done])) == list(range(300))
    subscription.close()


def test_killed_publisher_loses_nothing(broker, queue, children):
    """Whatever a publisher was told is stored outlives its kill -9."""
    code = (
        "import itertools\nfor n in itertools.count():\n"
        "    broker.publish([Frame('i', queue, b'%d-%d' % (n, part)) for part in range(n % 3 + 1)], 5.0)\n    say(n)\n"
    )
    publisher = children(code, broker, queue)
    for _ in range(200):
        last = int(publisher.stdout.readline())
    publisher.kill()
    last = max([last, *map(int, publisher.communicate()[0].split())])
    confirmed = {f"{n}-{part}" for n in range(last + 1) for part in range(n % 3 + 1)}

    assert confirmed <= set(bodies(broker.peek(queue, 1_000_000)))
    broker.purge(queue)
