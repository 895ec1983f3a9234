"""What ``boost doctor`` looks at where the broker is Redis or Valkey."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from boost_core.plugin import BrokerUnavailable, Examined, Finding, Level

from boost_broker_redis.broker import RedisBroker
from boost_broker_redis.server import MOST_SKEW, Server

SLOW = 0.05


def check(subject: Examined) -> Iterator[Finding]:
    """Tell what the server survives, whether it takes messages, how far its clock and how far it is."""
    broker: RedisBroker = subject.broker
    started = time.monotonic()
    server = broker.probe()
    took = time.monotonic() - started
    yield Finding(Level.OK, _kept(server))
    loss = Level.WARNING if broker.options.durability == "none" else Level.DANGER
    for finding in server.unusable(broker.spec.name):
        yield Finding(finding.level, f"it {finding.text}", finding.remedy)
    for finding in server.forgetful():
        yield Finding(loss, f"it {finding.text}", finding.remedy)
    for finding in server.doubtful():
        yield Finding(finding.level, f"it {finding.text}", finding.remedy)
    yield from _refused(broker, sorted({plan.queue for plan in subject.plans}))
    if abs(server.ahead) > MOST_SKEW:
        text = f"its clock is {abs(server.ahead):.1f} s {'ahead of' if server.ahead > 0 else 'behind'} this machine's"
        yield Finding(Level.WARNING, text, "Have both set their clocks by NTP: max_age= and delays go by them.")
    if took > SLOW:
        yield Finding(Level.WARNING, f"a round trip takes {took * 1000:.0f} ms", "Each single push takes as long.")


def _refused(broker: RedisBroker, queues: Sequence[str]) -> Iterator[Finding]:
    try:
        broker.prove([name for queue in queues for name in (queue, f"{queue}.dead")])
    except BrokerUnavailable as error:
        yield Finding(Level.DANGER, error.problem, error.fix)


def _kept(server: Server) -> str:
    version = ".".join(map(str, server.version or ())) or "of an unknown version"
    appendonly = {None: "unknown", True: f"yes, appendfsync {server.appendfsync or 'unknown'}", False: "no"}
    kept = f"appendonly {appendonly[server.appendonly]}, maxmemory-policy {server.policy or 'unknown'}"
    behind = f", {server.snapshot}" if server.appendonly is False and server.snapshot else ""
    return f"{server.software} {version}, {kept}{behind}"
