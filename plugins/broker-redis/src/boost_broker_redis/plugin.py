"""What core reads of this package without loading the client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from boost_core.plugin import (
    BrokerSpec,
    Capability,
    Check,
    Guarantee,
    Limits,
    Secret,
    duration,
    hookimpl,
    option,
    redisurl,
)

LOOK_SECONDS: Final = 2.0
"""An idle worker looks by itself this often, or every quarter of the lease if that is less."""

DURABILITIES: Final = ("server", "none")


def _durability(value: str) -> str | None:
    return None if value in DURABILITIES else "it is 'server' or 'none'"


def _positive(value: float) -> str | None:
    return None if value > 0 else "it must be over 0 seconds"


@attrs.frozen(kw_only=True)
class RedisOptions:
    """The options of brokers ``redis`` and ``redis-stream``."""

    url: Secret | None = option(
        None,
        check=redisurl.problem_of,
        help="redis://user:password@host:port/db, rediss:// for TLS, unix:///path; by default redis://localhost:6379/0.",
    )
    durability: str = option(
        "server",
        check=_durability,
        help="'server' refuses a server that forgets, 'none' takes any: then messages can be lost.",
    )
    lease: float = option(
        10.0, convert=duration, check=_positive, help="Seconds until a dead or stalled worker's messages go to another."
    )
    duplicate_window: float = option(
        60.0, convert=duration, help="Seconds in which a frame published again is stored once; 0 for never."
    )
    timeout: float = option(10.0, convert=duration, check=_positive, help="Longest wait for the server, in seconds.")

    def effective(self, spec: BrokerSpec) -> tuple[frozenset[Capability], Limits]:
        """Return what these options leave of the capabilities, and the limits that follow from the lease."""
        absent = set()
        if self.durability == "none":
            absent.add(Capability.PERSISTENT)
        if not self.duplicate_window:
            absent.add(Capability.DEDUP)
        limits = attrs.evolve(
            spec.limits, lease=self.lease, takeover=self.lease + min(LOOK_SECONDS, self.lease / 4) + 1
        )
        return spec.capabilities - absent, limits


COMMON: Final = frozenset(
    {
        Capability.ACK,
        Capability.PERSISTENT,
        Capability.REPLACE,
        Capability.LEASES,
        Capability.DELAY,
        Capability.ORDERED,
        Capability.DEDUP,
        Capability.BATCH_PUBLISH,
        Capability.BATCH_FETCH,
        Capability.BATCH_ACK,
        Capability.DEPTH,
        Capability.PURGE,
        Capability.PEEK,
    }
)
KILLED: Final = 'nothing lost, taken over within 13 s; 3.5 s with `lease="2s"`'
GUARANTEES: Final = (
    Guarantee(
        when="`appendonly yes`, `appendfsync everysec` on the server",
        worker_killed=KILLED,
        all_killed="nothing lost; the last 2 s may be while its disk is slow",
        power_cut="the last 1 to 2 s may be lost",
    ),
    Guarantee(
        when="`appendonly yes`, `appendfsync always` on the server",
        worker_killed=KILLED,
        all_killed="nothing lost",
        power_cut="nothing lost, if the disk keeps its word",
    ),
    Guarantee(
        when='`durability="none"`, a server that keeps nothing',
        worker_killed=KILLED,
        all_killed="everything may be lost",
        power_cut="everything may be lost",
    ),
)
LIMITS: Final = Limits(max_body=16 * 1024 * 1024, lease=10.0, takeover=13.0)

REDIS: Final = BrokerSpec(
    name="redis",
    factory="boost_broker_redis.broker:RedisBroker",
    options=RedisOptions,
    schemes=("rediss", "unix", "valkey", "valkeys"),
    capabilities=COMMON | {Capability.PRIORITY, Capability.TTL},
    limits=attrs.evolve(LIMITS, priorities=256),
    guarantees=GUARANTEES,
    store="redis",
    summary="Queues on Redis or Valkey: sorted sets and Lua, workers leased.",
)
REDIS_STREAM: Final = BrokerSpec(
    name="redis-stream",
    factory="boost_broker_redis.broker:RedisStreamBroker",
    options=RedisOptions,
    schemes=("rediss-stream", "unix-stream"),
    capabilities=COMMON,
    limits=LIMITS,
    guarantees=GUARANTEES,
    store="redis",
    summary="Queues as Redis streams, which other programs can read and inspect; messages leased.",
)


@hookimpl
def boost_brokers() -> Sequence[BrokerSpec]:
    """Return the brokers ``redis`` and ``redis-stream``."""
    return [REDIS, REDIS_STREAM]


@hookimpl
def boost_checks() -> Sequence[Check]:
    """Return what ``boost doctor`` looks at."""
    run = "boost_broker_redis.checks:check"
    return [Check(name=spec.name, run=run, broker=spec.name) for spec in (REDIS, REDIS_STREAM)]
