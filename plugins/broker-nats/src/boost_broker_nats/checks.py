"""What ``boost doctor`` looks at where queues are streams of NATS."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from boost_core.plugin import BrokerUnavailable, Examined, Finding, Level
from nats.js.errors import NotFoundError

from boost_broker_nats.broker import NatsBroker
from boost_broker_nats.fitness import slow, unfit
from boost_broker_nats.permissions import proofs
from boost_broker_nats.place import Place
from boost_broker_nats.streams import ahead

SKEW_SECONDS: Final = 1.0
"""Clocks that differ by more are worth a word."""


async def check(subject: Examined) -> Sequence[Finding]:
    """Tell the server's version, what queues survive there, and whether the clocks agree."""
    broker: NatsBroker = subject.broker
    findings = [Finding(Level.OK, "NATS {}.{} with JetStream".format(*broker.streams.connection.version))]
    queues, differences = sorted({plan.queue for plan in subject.plans}), [0.0]
    findings += await _of_permissions(broker, [name for queue in queues for name in (queue, f"{queue}.dead")])
    for queue in queues:
        sent = time.time()
        told = await _facts(broker, queue)
        if told is None:
            findings.append(Finding(Level.OK, f"queue {queue!r} has no stream yet: the first push or worker makes it"))
        else:
            differences.append(ahead(told.get("ts"), sent, time.time()))
            findings += await _of_queue(broker, queue, told["config"])
        dead = await _facts(broker, f"{queue}.dead")
        if dead is not None:
            findings += await _of_queue(broker, f"{queue}.dead", dead["config"])
    findings += _of_clocks(max(differences, key=abs))
    return findings


async def _facts(broker: NatsBroker, queue: str) -> dict[str, Any] | None:
    try:
        return await broker.streams.info(Place.of(queue))
    except NotFoundError:
        return None


async def _of_permissions(broker: NatsBroker, queues: Sequence[str]) -> Sequence[Finding]:
    try:
        await broker.streams.connection.tell(proofs(queues))
    except BrokerUnavailable as error:
        return [Finding(Level.DANGER, error.problem, error.fix)]
    return []


async def _of_queue(broker: NatsBroker, queue: str, config: dict[str, Any]) -> Sequence[Finding]:
    """Tell what would stop workers, lose messages, or keep them long."""
    place, streams = Place.of(queue), broker.streams
    findings = [
        Finding(Level.DANGER, fault.problem, fault.fix) for fault in unfit(queue, config, streams.wanted(queue))
    ]
    consumer = await streams.consumer(place)
    if consumer is not None and (fault := slow(place.stream, consumer["config"], broker.options.lease)):
        findings.append(Finding(Level.WARNING, fault.problem, fault.fix))
    return [*findings, _of_copies(config)]


def _of_copies(config: dict[str, Any]) -> Finding:
    """Tell what a power cut would lose. Whether confirmed messages are on disk is the server's own secret."""
    stream, copies = f"stream {config['name']!r}", config["num_replicas"]
    if copies == 1:
        text = f"{stream} is kept once; a power cut loses what its server hasn't written, by default up to two minutes"
        remedy = "Set jetstream { sync_interval: always } there, which can't be asked from here; or replicas=3."
        return Finding(Level.WARNING, text, remedy)
    return Finding(Level.OK, f"{stream} is kept {copies} times")


def _of_clocks(difference: float) -> Iterator[Finding]:
    if abs(difference) > SKEW_SECONDS:
        text = f"the server's clock is {abs(difference):.1f} s {'ahead' if difference > 0 else 'behind'}"
        yield Finding(Level.WARNING, text, "Let both machines follow NTP; delays are counted by the server's clock.")
