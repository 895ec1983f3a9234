"""What core reads of this package without loading the client."""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence
from typing import Final

import attrs
from boost_core.plugin import Secret, StoreSpec, duration, hookimpl, option

SCHEMES: Final = ("redis", "rediss", "redis-stream", "rediss-stream", "unix", "valkey", "valkeys")
"""Those of the brokers too: a store that goes with one is told its URL."""


def _url(value: Secret | None) -> str | None:
    scheme = urllib.parse.urlsplit(value.reveal()).scheme if value is not None else SCHEMES[0]
    return None if scheme in SCHEMES else f"its scheme is {scheme!r}; give one of {', '.join(SCHEMES)}"


def _positive(value: float) -> str | None:
    return None if value > 0 else "it must be over 0 seconds"


@attrs.frozen(kw_only=True)
class RedisStoreOptions:
    """The options of store ``redis``."""

    url: Secret | None = option(
        None, check=_url, help="As of broker redis; by default that broker's, else redis://localhost:6379/0."
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
