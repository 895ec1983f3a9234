"""What tests do with brokers, in this process and in others."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time

import attrs
from boost_broker_kafka.broker import KafkaBroker
from boost_broker_kafka.plugin import SPEC, KafkaOptions
from boost_core.options import build_options
from boost_core.plugin import BrokerUnavailable, Frame, PublishError, QueueSpec, new_id
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

PATIENCE = 30.0

PRELUDE = """
import os, sys, time
sys.path[:0] = [sys.argv[1]]
from kafka_stage import PATIENCE, bodies, make_broker, push, take
from boost_core.plugin import Frame, QueueSpec
url, group, queue, session = sys.argv[2:6]
broker = make_broker(url, group=group, session_timeout=session)
broker.open()
def say(*words): print(*words, flush=True)
def subscribe(lost=lambda gone: None):
    return broker.subscribe([QueueSpec(name=queue)], {queue: 1000}, lost)
"""


def make_broker(url, **options):
    """Return a broker that isn't open."""
    built = build_options("broker 'kafka'", KafkaOptions, {"url": url, **options})
    broker = KafkaBroker(built)
    capabilities, limits = built.effective(SPEC)
    broker.spec = attrs.evolve(SPEC, capabilities=capabilities, limits=limits)
    return broker


COUNT_MEMBERS = """
import sys
from confluent_kafka.admin import AdminClient
servers, group = sys.argv[1:]
client = AdminClient({"bootstrap.servers": servers})
asked = client.describe_consumer_groups([group], request_timeout=5.0)
print(len(asked[group].result(10).members))
"""


class Stage:
    """Brokers of one consumer group, each as if in a process of its own, and their subscriptions."""

    def __init__(self, url):
        self.url = url
        self.group = f"g{new_id()[:12]}"
        self._opened = []

    def broker(self, **options):
        """Return an opened broker."""
        broker = make_broker(self.url, **{"group": self.group, "partitions": 4, **options})
        broker.open()
        self._opened.append(broker)
        return broker

    def subscribe(self, broker, *queues, credit=None, lost=None):
        """Declare queues and return a subscription to them."""
        specs = [QueueSpec(name=queue) for queue in queues]
        broker.declare(specs)
        subscription = broker.subscribe(specs, credit or {}, lost or (lambda gone: None))
        self._opened.append(subscription)
        return subscription

    def closes(self, one):
        """Have something closed with the stage."""
        self._opened.append(one)

    def close(self):
        """Close all, the last first."""
        for one in reversed(self._opened):
            one.close()

    # --- behind the broker's back ------------------------------------------------------------------

    @property
    def servers(self):
        """The address as clients of Kafka want it."""
        return self.url.rpartition("//")[2]

    @functools.cached_property
    def admin(self):
        """An admin client."""
        return AdminClient({"bootstrap.servers": self.servers})

    def produce(self, topic, *values, **facts):
        """Produce records that are none of boost's."""
        producer = Producer({"bootstrap.servers": self.servers})
        for value in values:
            producer.produce(topic, value, **facts)
        assert producer.flush(PATIENCE) == 0

    @contextlib.contextmanager
    def stranger(self, topic):
        """Be in the group with a consumer that is none of boost's."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": self.group})
        consumer.subscribe([topic])
        until(lambda: consumer.poll(0.1) is None and consumer.assignment())
        yield
        consumer.close()

    def members(self):
        """Return how many are in the group; -1 while nobody knows.

        Asked by a process of its own: confluent-kafka 2.16.1 aborts now and then where the coordinator has just begun.
        """
        command = [sys.executable, "-c", COUNT_MEMBERS, self.servers, self.group]
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        return int(asked.stdout) if asked.returncode == 0 else -1

    def marks(self, topic, partitions):
        """Return the first and the next offset of each partition."""
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "looking"})

        def mark(number):
            try:
                return consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=PATIENCE)
            except KafkaException:  # its server doesn't know yet that it leads it
                return None

        marks = [until(lambda number=number: mark(number)) for number in range(partitions)]
        consumer.close()
        return marks


def push(broker, queue, *bodies, **facts):
    """Publish bodies, each as a frame of its own, in one batch."""
    broker.publish([Frame(f"id-{body}", queue, str(body).encode(), **facts) for body in bodies], PATIENCE)


def push_surely(broker, frames, seconds=PATIENCE):
    """Publish until everything is stored: what failed, and what is unsure, again."""
    end = time.monotonic() + seconds
    while frames:
        try:
            broker.publish(frames, 2.0)
        except PublishError as error:
            assert time.monotonic() < end, error
            frames = [frames[number] for number in sorted([*error.failed, *error.unsure])]
        except BrokerUnavailable as error:
            assert time.monotonic() < end, error
        else:
            return


def take(subscription, queue, count, seconds=PATIENCE):
    """Fetch until ``count`` deliveries came."""
    end = time.monotonic() + seconds
    got = []
    while len(got) < count and time.monotonic() < end:
        got += subscription.fetch({queue: count - len(got)}, 0.5)
    return got


def until(condition, seconds=PATIENCE):
    """Return what ``condition`` returns as soon as it is true."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
    return result


def connected(subscription):
    """Return whether a server answers the subscription again."""
    try:
        subscription.reconnect()
    except BrokerUnavailable:
        return False
    return True


def bodies(deliveries):
    """Return the bodies of deliveries."""
    return [one.body.decode() for one in deliveries]


class Children:
    """Python processes, and whatever they fork, that end with a test."""

    def __init__(self):
        self._started = []

    def start(self, code, url, group, queue, session=10.0):
        """Start one with an opened broker."""
        here = os.path.dirname(__file__)
        command = [sys.executable, "-c", PRELUDE + code, here, url, group, queue, str(session)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, process_group=0
        )
        self._started.append(child)
        return child

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for child in self._started:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.communicate()
