"""The plainest loops on each server's own client, in batches of 100, with the durability that the broker has.

A rival makes the same promises as the broker: each message is confirmed before the publishing call returns, and what
was taken can be had again by others until it is acknowledged, so that a list on Redis has a second one of what is being
worked on. A rival neither checks nor encodes anything, and runs nothing.

The goals are about what people write with the client: messages published one by one in a pipeline, a hundred taken,
and these acknowledged as one before the next. Some clients can do quicker, which is told beside it, without a goal: a
list's push of a hundred values is a single command, the next messages can be asked for along with the acks, and of
Kafka's commits only the last needs an answer. All that keeps the promise as well; but of a hundred values in one
command none has a name, to be published again by, delayed, or put before others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from bench.raw.kafka import RawKafka
from bench.raw.nats import RawNats
from bench.raw.rabbitmq import RawRabbit
from bench.raw.redis import RawList, RawStream
from bench.raw.rival import Raw

RAW: Final[Mapping[str, Callable[[str], Raw]]] = {
    "redis": RawList,
    "redis-stream": RawStream,
    "rabbitmq": RawRabbit,
    "kafka": RawKafka,
    "nats": RawNats,
}
"""The plain client of each broker's server, for the URL of one that is fresh."""
