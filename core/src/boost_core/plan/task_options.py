"""The task options that core itself owns; all others belong to controls."""

from __future__ import annotations

from typing import Any

import attrs

from boost_core.options import duration, option


def _at_least_one(value: int | None) -> str | None:
    return None if value is None or value >= 1 else "it must be at least 1"


def _not_negative(value: int) -> str | None:
    return None if value >= 0 else "it must be 0 or more; higher ones are run first"


def _sync(value: Any) -> str | None:
    return None if value in (None, "thread") else "it is None or 'thread'"


@attrs.frozen(kw_only=True)
class CoreOptions:
    """Options of every task."""

    broker: Any = option(None, help="Broker: a name, name@distribution, a URL or a BrokerSpec.")
    broker_options: dict[str, Any] = option(attrs.Factory(dict), help="Options of that broker, over those of the app.")
    pool: str | None = option(None, help="Concurrency mode; threads, or asyncio for coroutine functions, unless set.")
    codec: str | None = option(None, help="Codec of the messages that are published.")
    concurrency: int | None = option(
        None, help="Runs of this task at once per process; the pool's own default unless set.", check=_at_least_one
    )
    priority: int = option(0, help="Messages of higher priority go first.", check=_not_negative, message=True)
    delay: float = option(0.0, help="Seconds until a message may start.", convert=duration, message=True)
    sync: str | None = option(None, help="'thread' lets a plain function run on the asyncio pool.", check=_sync)
