"""The streams that hold queues, one a queue.

A stream of its own, because retention, copies, limits, deletion and purging are the stream's in JetStream: a queue that
is purged or deleted leaves the others alone, its depth is two numbers of its own, and old messages of one queue don't
slow the others down.
"""

from __future__ import annotations

import datetime
import logging
import time
from typing import Any, Final

import attrs
from boost_core.plugin import BrokerUnavailable
from nats.js.errors import APIError, NotFoundError

from boost_broker_nats.connection import Connection
from boost_broker_nats.fitness import slow, unfit
from boost_broker_nats.place import CONSUMER, Place
from boost_broker_nats.plugin import NatsOptions

log = logging.getLogger("boost.broker.nats")

DUPLICATE_SECONDS: Final = 120
"""How long a stream knows the ids of what was published, so that a repeat is stored once."""

MOST_PENDING: Final = 65_536
"""How many messages of a queue may be with workers at once."""

IN_USE: Final = 10058
"""JetStream's code for a stream that exists with another configuration."""

_NANOSECONDS: Final = 1_000_000_000


@attrs.frozen
class Streams:
    """Makes and reads streams and their consumers."""

    connection: Connection
    options: NatsOptions

    async def make(self, queue: str) -> float:
        """Have the queue's stream exist, fit for it; return how far the server's clock is ahead of ours, in seconds.

        Raises ``BrokerUnavailable`` where a stream of that name is unfit.
        """
        wanted = self.wanted(queue)
        sent = time.time()
        try:
            told = await self.connection.api(f"STREAM.CREATE.{wanted['name']}", **wanted)
        except APIError as error:
            if error.err_code != IN_USE:
                raise self.refused(f"stream {wanted['name']!r} for queue {queue!r}", error) from error
            told = await self._adapted(queue, wanted)
        return ahead(told.get("ts"), sent, time.time())

    async def _adapted(self, queue: str, wanted: dict[str, Any]) -> dict[str, Any]:
        """Give an existing stream what it lacks and can be given; whatever else its owner set stays."""
        told = await self.info(Place.of(queue))
        config = told["config"]
        if fault := next(unfit(queue, config, wanted), None):
            raise BrokerUnavailable(self.connection.name, fault.problem, fault.fix)
        lacks = [name for name in ("allow_msg_ttl", "allow_msg_schedules") if name in wanted and not config.get(name)]
        if not lacks:
            return told
        changed = {**config, **dict.fromkeys(lacks, True), "discard": wanted["discard"]}
        try:
            return await self.connection.api(f"STREAM.UPDATE.{config['name']}", **changed)
        except APIError as error:
            raise self.refused(f"{' and '.join(lacks)} for stream {config['name']!r}", error) from error

    def wanted(self, queue: str) -> dict[str, Any]:
        """Return how a queue's stream is made."""
        place = Place.of(queue)
        config = {
            "name": place.stream,
            "description": queue,
            "subjects": [place.jobs, f"{place.later}*"],
            "retention": "workqueue",
            "storage": "file",
            "num_replicas": self.options.replicas,
            "duplicate_window": DUPLICATE_SECONDS * _NANOSECONDS,
            "discard": "new",
            "max_msgs": -1,
            "max_bytes": -1,
            "max_msg_size": -1,
            "max_msgs_per_subject": -1,
            "max_consumers": -1,
        }
        if self.options.delays:
            # Schedules exclude discard=new. Without limits nothing is discarded, and a stream with some is refused.
            config |= {"allow_msg_schedules": True, "allow_msg_ttl": True, "discard": "old"}
        return config

    def refused(self, what: str, error: APIError) -> BrokerUnavailable:
        """Return the error for something that JetStream refuses, with the remedy where it is known."""
        fix = None
        if "replicas" in (error.description or ""):
            fix = f"Set replicas to what the server can do; it is {self.options.replicas}."
        elif "no suitable peers" in (error.description or "") or "resources" in (error.description or ""):
            fix = "Give JetStream more room, or more servers."
        return BrokerUnavailable(self.connection.name, f"the server refuses {what}: {error.description}", fix)

    async def info(self, place: Place) -> dict[str, Any]:
        """Return the facts of a stream, the number of waiting and running jobs under ``state.subjects``."""
        return await self.connection.api(f"STREAM.INFO.{place.stream}", subjects_filter=place.jobs)

    async def consumer(self, place: Place) -> dict[str, Any] | None:
        """Return the facts of a queue's consumer; None where no worker has been there yet."""
        try:
            return await self.connection.api(f"CONSUMER.INFO.{place.stream}.{CONSUMER}")
        except NotFoundError:
            return None

    async def consume(self, queue: str) -> str:
        """Have the queue's consumer exist, with a lease at least as long as ours; return when it was made."""
        place = Place.of(queue)
        lease = int(self.options.lease * _NANOSECONDS)
        there = await self.consumer(place)
        if there is not None and there["config"]["ack_wait"] >= lease:
            if fault := slow(place.stream, there["config"], self.options.lease):
                log.warning("%s\n  %s", fault.problem, fault.fix)
            return str(there["created"])  # workers share it: the most patient one decides
        config = {
            "name": CONSUMER,
            "durable_name": CONSUMER,
            "filter_subject": place.jobs,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": lease,
            "max_deliver": -1,
            "max_ack_pending": MOST_PENDING,
            "max_waiting": MOST_PENDING,
        }
        verb = f"CONSUMER.CREATE.{place.stream}.{CONSUMER}.{place.jobs}"
        try:
            told = await self.connection.api(verb, stream_name=place.stream, config=config)
        except APIError as error:
            raise self.refused(f"a consumer of queue {queue!r}", error) from error
        return str(told["created"])


def ahead(told: str | None, before: float, after: float) -> float:
    """Return by how much the server's clock is ahead, less what the way of the answer can explain."""
    if told is None:
        return 0.0
    theirs = epoch(told)
    return theirs - after if theirs > after else min(0.0, theirs - before)


def epoch(told: str) -> float:
    """Return a time as the server writes it, in epoch seconds."""
    return datetime.datetime.fromisoformat(told).timestamp()
