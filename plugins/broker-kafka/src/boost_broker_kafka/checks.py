"""What ``boost doctor`` looks at where the broker is Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator

from boost_core.plugin import Examined, Finding, Level

from boost_broker_kafka.broker import KafkaBroker
from boost_broker_kafka.topics import topic_of

SLOW = 0.05
_SURE = 2


def check(subject: Examined) -> Iterator[Finding]:
    """Tell what the cluster survives, how long it keeps messages, and how far it is."""
    broker: KafkaBroker = subject.broker
    started = time.monotonic()
    broker.cluster.probe(broker.options.timeout)
    took = time.monotonic() - started
    servers = broker.cluster.servers()
    plural = "" if servers == 1 else "s"
    yield Finding(Level.OK, f"Kafka, {servers} server{plural}, group {broker.options.group!r}, acks=all, idempotent")
    topics = sorted({topic_of(plan.queue) for plan in subject.plans})
    copies = broker.cluster.copies(topics)
    for topic, settings in (broker.cluster.settings(list(copies)) if copies else {}).items():
        yield from _kept(topic, copies[topic], int(settings["min.insync.replicas"]))
        yield from _lasting(topic, int(settings["retention.ms"]))
    if took > SLOW:
        yield Finding(Level.WARNING, f"a round trip takes {took * 1000:.0f} ms", "Each single push takes as long.")


def _kept(topic: str, copies: int, needed: int) -> Iterator[Finding]:
    if needed > copies:
        text = f"topic {topic!r} has {copies} copies, and wants {needed} of them for each message: publishing fails"
        yield Finding(Level.DANGER, text, "Lower its min.insync.replicas, or give it more replicas.")
    elif copies == 1:
        text = f"topic {topic!r} has one copy: what its server's disk loses is lost"
        yield Finding(Level.WARNING, text, "Make it with replication=3, min_insync=2, on three servers or more.")
    elif needed < _SURE:
        text = f"on topic {topic!r} a message counts as stored with {needed} copy of {copies}"
        yield Finding(Level.WARNING, text, "Set its min.insync.replicas to 2.")


def _lasting(topic: str, milliseconds: int) -> Iterator[Finding]:
    if milliseconds >= 0:
        text = f"topic {topic!r} deletes messages after {milliseconds / 3_600_000:g} h, done or not"
        yield Finding(Level.WARNING, text, "Set its retention.ms to -1: what is done is deleted by trim=True.")
