"""What core reads of this package without loading SQLite."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
from boost_core.plugin import BrokerSpec, Capability, Check, Guarantee, Limits, duration, hookimpl, option


def _durability(value: str) -> str | None:
    return None if value in ("process", "power") else "it is 'process' or 'power'"


def _positive(value: float) -> str | None:
    return None if value > 0 else "it must be over 0 seconds"


@attrs.frozen(kw_only=True)
class SqliteOptions:
    """The options of broker ``sqlite``."""

    path: str | None = option(None, help="The file; by default one a project, in the user's data folder.")
    durability: str = option(
        "process", check=_durability, help="'process' survives kill -9 of anything, 'power' a power cut as well."
    )
    lease: float = option(
        10.0, convert=duration, check=_positive, help="Seconds until a stalled worker's messages go to another."
    )
    timeout: float = option(
        10.0, convert=duration, check=_positive, help="Longest wait for the file's lock, in seconds."
    )


SPEC = BrokerSpec(
    name="sqlite",
    factory="boost_broker_sqlite.broker:SqliteBroker",
    options=SqliteOptions,
    capabilities=frozenset(
        {
            Capability.ACK,
            Capability.PERSISTENT,
            Capability.REPLACE,
            Capability.LEASES,
            Capability.DELAY,
            Capability.PRIORITY,
            Capability.ORDERED,
            Capability.BATCH_PUBLISH,
            Capability.BATCH_FETCH,
            Capability.BATCH_ACK,
            Capability.DEPTH,
            Capability.PURGE,
            Capability.PEEK,
            Capability.TTL,
        }
    ),
    limits=Limits(max_body=16 * 1024 * 1024, priorities=256, lease=10.0, takeover=2.0),
    guarantees=(
        Guarantee(
            when='`durability="process"` (default)',
            worker_killed="nothing lost, taken over within 2 s",
            all_killed="nothing lost",
            power_cut="the last pushes may be lost",
        ),
        Guarantee(
            when='`durability="power"`',
            worker_killed="nothing lost, taken over within 2 s",
            all_killed="nothing lost",
            power_cut="nothing lost",
        ),
    ),
    store="sqlite",
    summary="Embedded queue in one SQLite file: many processes of one machine, no server.",
)


@hookimpl
def boost_brokers() -> Sequence[BrokerSpec]:
    """Return the broker ``sqlite``."""
    return [SPEC]


@hookimpl
def boost_checks() -> Sequence[Check]:
    """Return what ``boost doctor`` looks at."""
    return [Check(name="sqlite", run="boost_broker_sqlite.checks:check", broker="sqlite")]
