"""The broker between real processes: kills, stops, forks, and wake-ups."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from boost_broker_sqlite.broker import SqliteBroker
from boost_broker_sqlite.plugin import SPEC, SqliteOptions
from boost_core.options import build_options
from boost_core.plugin import Depth, Frame, QueueSpec

QUEUE = QueueSpec(name="q")
PRELUDE = """
import os, sys, time
from boost_broker_sqlite.broker import SqliteBroker
from boost_broker_sqlite.plugin import SPEC, SqliteOptions
from boost_core.options import build_options
from boost_core.plugin import Frame, QueueSpec
QUEUE = QueueSpec(name="q")
broker = SqliteBroker(build_options("broker 'sqlite'", SqliteOptions, {"path": sys.argv[1], "lease": sys.argv[2]}))
broker.spec = SPEC
broker.open()
broker.declare([QUEUE])
def say(*words): print(*words, flush=True)
"""
HOLD = """
subscription = broker.subscribe([QUEUE], {}, lambda _: None)
held = subscription.fetch({"q": 10}, 10.0)
say("holds", len(held))
"""
SLEEP = "time.sleep(60)\n"


@pytest.fixture
def path(tmp_path):
    """Where the file is."""
    return tmp_path / "q.db"


@pytest.fixture
def children():
    """Start Python processes that end with the test."""
    started = []

    def start(path, code, lease=10.0):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", PRELUDE + code, str(path), str(lease)]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, process_group=0
        )
        started.append(child)
        return child

    yield start
    for child in started:
        try:
            os.killpg(child.pid, signal.SIGKILL)  # whatever it forked is in its group
        except ProcessLookupError:
            pass
        child.communicate()


@pytest.fixture
def broker(path):
    """An opened broker."""
    broker = build_broker(path)
    yield broker
    broker.close()


def build_broker(path, **options):
    """Return an opened broker with the queue ``q``."""
    broker = SqliteBroker(build_options("broker 'sqlite'", SqliteOptions, {"path": str(path), **options}))
    broker.spec = SPEC
    broker.open()
    broker.declare([QUEUE])
    return broker


def push(broker, *bodies):
    """Publish bodies."""
    broker.publish([Frame("id", "q", str(body).encode()) for body in bodies], 5.0)


def take(subscription, count, seconds=10.0):
    """Fetch until ``count`` deliveries came; return them and how long that took."""
    started = time.monotonic()
    got = []
    while len(got) < count and time.monotonic() < started + seconds:
        got += subscription.fetch({"q": count - len(got)}, 0.1)
    return got, time.monotonic() - started


def test_push_wakes_another_process(path, broker, children):
    """A blocked fetch in another process returns once something is published."""
    child = children(
        path,
        "subscription = broker.subscribe([QUEUE], {}, lambda _: None)\nsay('ready')\n"
        "say(subscription.fetch({'q': 1}, 60.0)[0].body.decode())\nsubscription.close()\n",
    )
    assert child.stdout.readline() == "ready\n"

    push(broker, "hello")

    assert child.stdout.readline() == "hello\n"
    assert child.wait(10) == 0


def test_wake_needs_no_sweep(path, children, monkeypatch):
    """The wake-up is the bell's doing, not that of a waiter that looks by itself: that one never would."""
    monkeypatch.setattr("boost_broker_sqlite.subscription.SWEEP_SECONDS", 1e9)
    broker = build_broker(path, lease=1e9)
    subscription = broker.subscribe([QUEUE], {}, lambda _: None)
    child = children(path, "say('ready')\nfor line in sys.stdin:\n    broker.publish([Frame('i', 'q', b'x')], 5.0)\n")
    assert child.stdout.readline() == "ready\n"

    for _ in range(20):
        got = []
        thread = threading.Thread(target=lambda got=got: got.extend(subscription.fetch({"q": 1}, 60.0)))
        thread.start()
        child.stdin.write("go\n")
        child.stdin.flush()
        thread.join(10)
        assert len(got) == 1
    subscription.close()
    broker.close()


def test_killed_worker_is_taken_over(path, broker, children):
    """What a worker killed with -9 held goes to another one within the bound, all of it, with one death."""
    subscription = broker.subscribe([QUEUE], {}, lambda _: None)
    child = children(path, HOLD + SLEEP)
    push(broker, *range(10))
    assert child.stdout.readline() == "holds 10\n"
    child.kill()

    got, seconds = take(subscription, 10)

    assert sorted((one.body, one.deaths) for one in got) == [(b"%d" % n, 1) for n in range(10)]
    assert seconds < SPEC.limits.takeover
    assert subscription.ack(got) == []
    assert broker.depth("q") == Depth()
    subscription.close()


def test_killed_worker_with_a_forked_child(path, broker, children):
    """A child that the dead worker forked, and that lives on, doesn't keep its locks: take-over is as fast."""
    subscription = broker.subscribe([QUEUE], {}, lambda _: None)
    child = children(
        path, HOLD + "if os.fork() == 0:\n    broker.after_fork()\n    say('forked')\n    time.sleep(60)\n" + SLEEP
    )
    push(broker, *range(10))
    assert child.stdout.readline() == "holds 10\n"
    assert child.stdout.readline() == "forked\n"
    child.kill()

    got, seconds = take(subscription, 10)

    assert [one.deaths for one in got] == [1] * 10
    assert seconds < SPEC.limits.takeover
    subscription.close()


def test_killed_worker_with_a_child_forked_behind_pythons_back(path, children):
    """A child forked by C code keeps the lock; then the timed lease frees the messages."""
    broker = build_broker(path, lease=1.0)
    child = children(
        path,
        HOLD + "import ctypes\nif ctypes.CDLL(None).fork() == 0:\n    time.sleep(60)\nsay('forked')\n" + SLEEP,
        lease=1.0,
    )
    push(broker, *range(10))
    assert child.stdout.readline() == "holds 10\n"
    assert child.stdout.readline() == "forked\n"
    child.kill()
    subscription = broker.subscribe([QUEUE], {}, lambda _: None)

    got, _ = take(subscription, 10)

    assert [one.deaths for one in got] == [1] * 10
    subscription.close()
    broker.close()


def test_stopped_worker_is_fenced(path, children):
    """A worker stopped past its lease loses its messages, and its late ack of what others run is refused."""
    broker = build_broker(path, lease=0.3)
    child = children(path, HOLD + "sys.stdin.readline()\nsay('fenced', len(subscription.ack(held)))\n", lease=0.3)
    push(broker, *range(10))
    assert child.stdout.readline() == "holds 10\n"
    os.kill(child.pid, signal.SIGSTOP)
    subscription = broker.subscribe([QUEUE], {}, lambda _: None)
    stop = threading.Event()
    keeper = threading.Thread(target=lambda: [subscription.extend([]) for _ in iter(lambda: stop.wait(0.1), True)])
    keeper.start()

    got, _ = take(subscription, 10)
    os.kill(child.pid, signal.SIGCONT)
    child.stdin.write("go on\n")
    child.stdin.flush()

    assert len(got) == 10
    assert child.stdout.readline() == "fenced 10\n"
    assert broker.depth("q").running == 10
    assert subscription.ack(got) == []
    stop.set()
    keeper.join(10)
    subscription.close()
    broker.close()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # threads of a test run don't touch what is tested
def test_forked_child_starts_anew(path, broker):
    """A forked child can't use its parent's broker, but one of its own; the parent's subscription is unharmed."""
    subscription = broker.subscribe([QUEUE], {}, lambda _: None)
    push(broker, "parent's")
    held = subscription.fetch({"q": 1}, 5.0)
    child = os.fork()
    if child == 0:
        try:
            broker.after_fork()
            fresh = build_broker(path)
            push(fresh, "child's")
            fresh.close()
        except BaseException:
            os._exit(1)
        os._exit(0)

    assert os.waitpid(child, 0)[1] == 0
    got, _ = take(subscription, 1)
    assert got[0].body == b"child's"
    assert subscription.extend(held) == []
    assert subscription.ack([*held, *got]) == []
    subscription.close()


def test_consumers_share_exactly_once(path, broker, children):
    """Four consumers take 2,000 messages, each exactly once."""
    code = (
        "subscription = broker.subscribe([QUEUE], {}, lambda _: None)\nsay('ready')\nsys.stdin.readline()\n"
        "while deliveries := subscription.fetch({'q': 16}, 0.5):\n"
        "    say(*(one.body.decode() for one in deliveries))\n"
        "    assert subscription.ack(deliveries) == []\n"
        "subscription.close()\n"
    )
    consumers = [children(path, code) for _ in range(4)]
    push(broker, *range(2000))
    for consumer in consumers:
        assert consumer.stdout.readline() == "ready\n"
    for consumer in consumers:
        consumer.stdin.write("go\n")
        consumer.stdin.flush()

    got = Counter(word for consumer in consumers for word in consumer.communicate(timeout=60)[0].split())

    assert got == Counter(map(str, range(2000)))
    assert [consumer.returncode for consumer in consumers] == [0] * 4
    assert broker.depth("q") == Depth()


def test_killed_publisher_loses_nothing(path, children):
    """Whatever a publisher was told is stored outlives its kill -9, and the file stays whole."""
    code = (
        "import itertools\nfor n in itertools.count():\n"
        "    broker.publish([Frame('i', 'q', b'%d-%d' % (n, part)) for part in range(n % 3 + 1)], 5.0)\n    say(n)\n"
    )
    confirmed = set()
    for _ in range(5):
        publisher = children(path, code)
        for _ in range(200):
            last = int(publisher.stdout.readline())
        publisher.kill()
        last = max([last, *map(int, publisher.communicate()[0].split())])
        confirmed |= {b"%d-%d" % (n, part) for n in range(last + 1) for part in range(n % 3 + 1)}

    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
    broker = build_broker(path)
    stored = {frame.body for frame in broker.peek("q", 1_000_000)}
    broker.close()

    assert confirmed <= stored


def test_many_killed_workers(path, broker, children):
    """Workers killed in the middle of fetching and settling lose nothing and leave a whole file."""
    code = (
        "subscription = broker.subscribe([QUEUE], {}, lambda _: None)\nsay('ready')\n"
        "while True:\n"
        "    deliveries = subscription.fetch({'q': 5}, 1.0)\n"
        "    subscription.replace([(one, Frame('i', 'done', one.body)) for one in deliveries[:3]])\n"
        "    subscription.release(deliveries[3:])\n"
    )
    push(broker, *range(300))
    for _ in range(6):
        worker = children(path, code)
        assert worker.stdout.readline() == "ready\n"
        worker.kill()
        worker.wait(10)
    subscription = broker.subscribe([QUEUE], {}, lambda _: None)
    done = broker.peek("done", 1000)
    left, _ = take(subscription, 300 - len(done))

    assert sorted(int(one.body) for one in [*left, *done]) == list(range(300))
    with broker._file.locked() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    subscription.close()
