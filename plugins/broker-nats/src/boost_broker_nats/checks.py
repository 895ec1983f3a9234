"""What ``boost doctor`` looks at where queues are streams of NATS."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from boost_core.plugin import BrokerUnavailable, Examined, Finding, Level
from nats.js.errors import NotFoundError

from boost_broker_nats.broker import NatsBroker
from boost_broker_nats.permissions import proofs
from boost_broker_nats.place import Place
from boost_broker_nats.streams import ahead, dropping_limit

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
        try:
            told = await broker.streams.info(Place.of(queue))
        except NotFoundError:
            findings.append(Finding(Level.OK, f"queue {queue!r} has no stream yet: the first push or worker makes it"))
            continue
        findings += _of_stream(told["config"])
        differences.append(ahead(told.get("ts"), sent, time.time()))
    findings += _of_clocks(max(differences, key=abs))
    return findings


async def _of_permissions(broker: NatsBroker, queues: Sequence[str]) -> Sequence[Finding]:
    try:
        await broker.streams.connection.tell(proofs(queues))
    except BrokerUnavailable as error:
        return [Finding(Level.DANGER, error.problem, error.fix)]
    return []


def _of_stream(config: dict[str, Any]) -> Iterator[Finding]:
    """Tell what would lose messages. Whether confirmed ones are on disk is the server's own secret."""
    stream, copies = f"stream {config['name']}", config["num_replicas"]
    if config["storage"] != "file":
        text = f"{stream} is kept in {config['storage']}: a restart of the server loses its messages"
        yield Finding(Level.DANGER, text, "Delete it while it is empty: it is made anew, on disk.")
    if limit := dropping_limit(config):
        yield Finding(Level.DANGER, f"{stream} has a {limit}: messages will be dropped", f"Take its {limit} away.")
    if copies == 1:
        text = f"{stream} is kept once; a power cut loses what its server hasn't written, by default up to two minutes"
        remedy = "Set jetstream { sync_interval: always } there, which can't be asked from here; or replicas=3."
        yield Finding(Level.WARNING, text, remedy)
    else:
        yield Finding(Level.OK, f"{stream} is kept {copies} times")


def _of_clocks(difference: float) -> Iterator[Finding]:
    if abs(difference) > SKEW_SECONDS:
        text = f"the server's clock is {abs(difference):.1f} s {'ahead' if difference > 0 else 'behind'}"
        yield Finding(Level.WARNING, text, "Let both machines follow NTP; delays are counted by the server's clock.")
