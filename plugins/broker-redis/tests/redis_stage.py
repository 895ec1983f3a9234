"""What tests do with brokers, in this process and in others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from urllib.parse import quote

import attrs
import redis
from boost_broker_redis.broker import RedisBroker, RedisStreamBroker
from boost_broker_redis.plugin import REDIS, REDIS_STREAM, RedisOptions
from boost_core.options import build_options
from boost_core.plugin import BrokerUnavailable, ConnectionLost, Frame, PublishError, QueueSpec

SPECS = {"redis": (RedisBroker, REDIS), "redis-stream": (RedisStreamBroker, REDIS_STREAM)}

PRELUDE = """
import os, sys, time
sys.path[:0] = [sys.argv[1]]
from redis_stage import build_broker, fetch, push, subscribe
from boost_core.plugin import Frame
name, url, queue, lease = sys.argv[2:6]
broker = build_broker(name, url, lease=lease)
def say(*words): print(*words, flush=True)
"""
HOLD = """
subscription = subscribe(broker, queue)
held = subscription.fetch({queue: 16}, 10.0)
say("holds", len(held))
"""
SLEEP = "time.sleep(60)\n"


def build_broker(name, url, **options):
    """Return an opened broker."""
    broker = make_broker(name, url, **options)
    broker.open()
    return broker


def make_broker(name, url, **options):
    """Return a broker that isn't open."""
    kind, spec = SPECS[name]
    built = build_options(f"broker {name!r}", RedisOptions, {"url": url, **options})
    broker = kind(built)
    capabilities, limits = built.effective(spec)
    broker.spec = attrs.evolve(spec, capabilities=capabilities, limits=limits)
    return broker


def subscribe(broker, *names, credit=None):
    """Declare queues and return a subscription to them."""
    queues = [QueueSpec(name=name) for name in names]
    broker.declare(queues)
    return broker.subscribe(queues, credit or {}, lambda _: None)


def push(broker, queue, *bodies, **facts):
    """Publish bodies, each as a frame of its own, in one batch."""
    broker.publish([Frame(f"id-{body}", queue, str(body).encode(), **facts) for body in bodies], 5.0)


def push_surely(broker, frames, seconds=20.0):
    """Publish until everything is stored: what failed, and what is unsure, again."""
    deadline = time.monotonic() + seconds
    while frames:
        try:
            broker.publish(frames, 2.0)
        except PublishError as error:
            assert time.monotonic() < deadline, error
            frames = [frames[number] for number in sorted([*error.failed, *error.unsure])]
        else:
            return


def fetch(subscription, queue, count=100, timeout=0.0):
    """Return up to ``count`` deliveries of one queue."""
    return subscription.fetch({queue: count}, timeout)


def take(subscription, queue, count, seconds=10.0):
    """Fetch until ``count`` deliveries came, for so long at most; return them."""
    deadline = time.monotonic() + seconds
    got = []
    while len(got) < count and (left := deadline - time.monotonic()) > 0:
        got += subscription.fetch({queue: count - len(got)}, left)
    return got


def bodies(deliveries):
    """Return the bodies of deliveries or frames."""
    return [one.body.decode() for one in deliveries]


def key(name, queue, part):
    """Return a key of a queue."""
    return f"{SPECS[name][0].PREFIX}:{{{quote(queue, safe='')}}}:{part}"


def client(url):
    """Return a client that asks the server itself."""
    return redis.Redis.from_url(url, protocol=2, decode_responses=True)


def waiters(broker, queue):
    """Return how many workers wait at a queue, as the server knows."""
    with client(broker.options.url.reveal()) as asking:
        return asking.zcard(key(broker.spec.name, queue, "waiters"))


def until(condition, seconds=10.0):
    """Return once a condition holds; fail where it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never became so"
        threading.Event().wait(0.005)


class Background:
    """A call in a thread of its own."""

    def __init__(self, call, *arguments):
        self.result = self.error = None
        self._thread = threading.Thread(target=self._run, args=(call, arguments), daemon=True)
        self._thread.start()

    def _run(self, call, arguments):
        try:
            self.result = call(*arguments)
        except BaseException as error:
            self.error = error

    @property
    def running(self):
        """Whether it still runs."""
        return self._thread.is_alive()

    def join(self, seconds=10.0):
        """Return what it returned, or raise what it raised; fail where it doesn't end."""
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "it never ended"
        if self.error is not None:
            raise self.error
        return self.result


class Children:
    """Python processes with a broker, which end with the test."""

    def __init__(self):
        self._started = []

    def start(self, code, broker, queue, lease=10.0):
        """Start one that runs ``code`` behind the prelude."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        facts = [os.path.dirname(__file__), broker.spec.name, broker.options.url.reveal(), queue, str(lease)]
        child = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, *facts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            process_group=0,
        )
        self._started.append(child)
        return child

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for child in self._started:
            try:
                os.killpg(child.pid, signal.SIGKILL)  # whatever it forked is in its group
            except ProcessLookupError:
                pass
            child.communicate()


def problem_of(name, url, **options):
    """Return the text of what opening raises."""
    try:
        build_broker(name, url, **options)
    except BrokerUnavailable as error:
        return str(error)
    raise AssertionError("it was opened")


def user(launch, *rules, name="me"):
    """Return the URL of a user of a fresh server with these rules."""
    server = launch(settings={"user": ["default on nopass ~* &* +@all", f"{name} on >sesame {' '.join(rules)}"]})
    return server.url.replace("://", f"://{name}:sesame@")


def again(subscription):
    """Reconnect as soon as it can be done."""
    while True:
        try:
            return subscription.reconnect()
        except ConnectionLost:
            threading.Event().wait(0.02)
