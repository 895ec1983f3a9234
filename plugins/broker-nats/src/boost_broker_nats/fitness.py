"""Whether a stream that exists, and its consumer, are fit for a queue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs

from boost_broker_nats.place import CONSUMER

_NANOSECONDS: Final = 1_000_000_000


@attrs.frozen
class Fault:
    """What is wrong, and the remedy."""

    problem: str
    fix: str


def unfit(queue: str, config: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[Fault]:
    """Tell what keeps a stream from holding a queue: what can't be changed, and what would lose messages."""
    stream = f"stream {config['name']!r}"
    for name in ("retention", "storage", "subjects"):
        if config[name] != wanted[name]:
            problem = f"{stream} has {name}={config[name]!r}; queue {queue!r} needs {wanted[name]!r}"
            yield Fault(problem, "Delete the stream while it is empty, since it is made anew; or rename the queue.")
    if limit := _dropping_limit(config):
        problem = f"{stream} has a {limit}: messages of queue {queue!r} would be dropped"
        yield Fault(problem, f"Take the stream's {limit} away.")


def _dropping_limit(config: Mapping[str, Any]) -> str | None:
    limits = (
        ("max_age",) if config["discard"] == "new" else ("max_age", "max_msgs", "max_bytes", "max_msgs_per_subject")
    )
    return next((limit for limit in limits if config.get(limit, -1) > 0), None)


def slow(stream: str, config: Mapping[str, Any], lease: float) -> Fault | None:
    """Tell that a consumer takes longer than the lease to give a dead worker's messages to another, if it does.

    Boost doesn't set that down: a worker with the longer lease may be there though nothing shows it, with its queue
    paused, and would lose what it is given next.
    """
    waits = config["ack_wait"] / _NANOSECONDS
    if waits <= lease:
        return None
    problem = f"a worker with lease={waits:g} s was there: a dead one's messages wait so long, not {lease:g} s"
    fix = f"Give all workers of a queue the same lease; once they have it: nats consumer edit {stream} {CONSUMER}"
    return Fault(f"stream {stream!r}: {problem}", f"{fix} --wait {lease:g}s")
