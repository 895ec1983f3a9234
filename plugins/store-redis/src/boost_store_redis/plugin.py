"""What core reads of this package without loading the client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs
from boost_core.plugin import Secret, StoreSpec, duration, hookimpl, option, redisurl


def _positive(value: float) -> str | None:
    return None if value > 0 else "it must be over 0 seconds"


@attrs.frozen(kw_only=True)
class RedisStoreOptions:
    """The options of store ``redis``."""

    url: Secret | None = option(
        None,
        check=redisurl.problem_of,
        help="As of broker redis; by default that broker's, else redis://localhost:6379/0.",
    )
    timeout: float = option(10.0, convert=duration, check=_positive, help="Longest wait for the server, in seconds.")


SPEC: Final = StoreSpec(
    name="redis",
    factory="boost_store_redis.store:RedisStore",
    options=RedisStoreOptions,
    schemes=("rediss", "unix", "valkey", "valkeys"),
    summary="Results on Redis or Valkey: any number of machines, awaited without polling.",
)


@hookimpl
def boost_stores() -> Sequence[StoreSpec]:
    """Return the store ``redis``."""
    return [SPEC]
