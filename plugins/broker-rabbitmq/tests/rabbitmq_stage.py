"""What tests do with brokers, in this process and in others."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import amqp
import attrs
from boost_broker_rabbitmq.broker import RabbitBroker
from boost_broker_rabbitmq.plugin import SPEC, RabbitOptions
from boost_core.options import build_options
from boost_core.plugin import Frame, PublishError, QueueSpec

PATIENCE = 30.0
MOST = 50 * 1024 * 1024

PRELUDE = """
import os, sys, time
sys.path[:0] = [sys.argv[1]]
from rabbitmq_stage import make_broker, push, subscribe, take
url, queue = sys.argv[2:4]
broker = make_broker(url, heartbeat=1)
broker.open()
def say(*words): print(*words, flush=True)
subscription = subscribe(broker, queue)
held = take(subscription, 16, queue)
"""
SLEEP = "say('holds'); time.sleep(60)\n"


def make_broker(url, **options):
    """Return a broker that isn't open."""
    built = build_options("broker 'rabbitmq'", RabbitOptions, {"url": url, **options})
    broker = RabbitBroker(built)
    capabilities, limits = built.effective(SPEC)
    broker.spec = attrs.evolve(SPEC, capabilities=capabilities, limits=limits)
    return broker


def subscribe(broker, *names, credit=None, lost=None, **facts):
    """Declare queues and return a subscription to them; ``facts`` are of all."""
    queues = [QueueSpec(name=name, **facts) for name in names]
    broker.declare(queues)
    return broker.subscribe(queues, credit or {}, lost or (lambda _: None))


def push(broker, queue, *bodies, timeout=10.0, **facts):
    """Publish bodies, each as a frame of its own, in one batch."""
    broker.publish([Frame(f"id-{body}", queue, str(body).encode(), **facts) for body in bodies], timeout)


def push_error(broker, queue, *bodies, timeout=10.0, **facts):
    """Return the error that publishing raises."""
    try:
        push(broker, queue, *bodies, timeout=timeout, **facts)
    except PublishError as error:
        return error
    raise AssertionError("it was published")


def take(subscription, count, *queues, seconds=PATIENCE):
    """Return ``count`` deliveries, fetched as they come."""
    found, deadline = [], time.monotonic() + seconds
    while len(found) < count and time.monotonic() < deadline:
        found += subscription.fetch(dict.fromkeys(queues, count - len(found)), 1.0)
    assert len(found) == count, f"{len(found)} of {count} came"
    return found


def bodies(deliveries):
    """Return what deliveries carry, as text."""
    return [bytes(delivery.body).decode() for delivery in deliveries]


def until(condition, seconds=PATIENCE):
    """Return what ``condition()`` gives once it is true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        threading.Event().wait(0.01)
    raise AssertionError(f"never became true: {condition}")


@contextlib.contextmanager
def foreign_channel(server):
    """Yield a channel of py-amqp's own."""
    connection = amqp.Connection(host=f"127.0.0.1:{server.port}")
    connection.connect()
    try:
        yield connection.channel()
    finally:
        connection.collect()


def declare(channel, queue, **arguments):
    """Make a queue as others make them; underscores of the arguments' names stand for hyphens."""
    plain = {name.replace("_", "-"): value for name, value in arguments.items()}
    channel.queue_declare(queue, durable=True, auto_delete=False, arguments=plain)


class Worker:
    """A process that holds sixteen messages; killed with all it started at the latest when the test ends."""

    def __init__(self, url, queue, script):
        command = [sys.executable, "-c", PRELUDE + script, os.path.dirname(__file__), url, queue]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def __enter__(self):
        assert self.process.stdout.readline() == "holds\n"
        return self

    def kill(self):
        """Kill the process alone, with -9."""
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
