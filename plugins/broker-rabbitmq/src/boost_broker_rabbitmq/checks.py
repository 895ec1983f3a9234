"""What ``boost doctor`` looks at where the queues are on RabbitMQ."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from boost_core.plugin import Examined, Finding, Level

from boost_broker_rabbitmq.broker import RabbitBroker
from boost_broker_rabbitmq.line import CONSUMER_TIMEOUT_FROM
from boost_broker_rabbitmq.session import Posting

ALARM_SECONDS = 2.0
NOWHERE = "boost~nowhere"
"""No queue is called that: a message for it comes back, and tells on its way whether the server takes messages."""


def check(subject: Examined) -> Iterator[Finding]:
    """Tell what the server is, whether it takes messages, and whether it lets jobs take their time."""
    broker: RabbitBroker = subject.broker
    until = time.monotonic() + broker.options.timeout
    with broker.sessions.lend(until) as session:
        version = session.connection.version
        answer = session.publish([Posting(NOWHERE, b"?", {})], time.monotonic() + ALARM_SECONDS)
    shown = ".".join(map(str, version))
    kind = broker.options.queue_type
    yield Finding(Level.OK, f"RabbitMQ {shown}, {kind} queues, heartbeat {broker.options.heartbeat:g} s")
    if not answer.homeless:
        problem = next(iter((answer.failed or answer.unsure).values()))
        yield Finding(Level.DANGER, problem, "Free memory or disk on the server; rabbitmqctl status shows its alarms.")
    if kind == "classic":
        yield Finding(
            Level.WARNING,
            "classic queues are on one node, and don't count workers that died",
            'queue_type="quorum" is replicated, and stops a job that kills its workers.',
        )
    if version < CONSUMER_TIMEOUT_FROM:
        yield from _long_jobs(subject.plans, broker.options.consumer_timeout, shown)


def _long_jobs(plans: tuple[Any, ...], allowed: float, version: str) -> Iterator[Finding]:
    unbounded = sorted(plan.name for plan in plans if plan.values["timeout"] is None)
    beyond = sorted(plan.name for plan in plans if (plan.values["timeout"] or 0) > allowed)
    remedy = "Raise consumer_timeout in rabbitmq.conf, and say so by the broker's option consumer_timeout."
    if beyond:
        text = f"jobs of {', '.join(beyond)} may take longer than consumer_timeout ({allowed:g} s), and then run twice"
        yield Finding(Level.DANGER, text, remedy)
    if unbounded:
        text = f"jobs of {', '.join(unbounded)} have no timeout; RabbitMQ {version} takes them back after {allowed:g} s"
        yield Finding(Level.WARNING, text, f"Give them a timeout. Or: {remedy[0].lower()}{remedy[1:]}")
