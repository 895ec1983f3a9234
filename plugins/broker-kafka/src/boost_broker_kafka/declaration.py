"""Makes the topics of queues, and says what is wrong with those that are there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from boost_core.plugin import BrokerUnavailable, QueueKind, QueueSpec
from boost_core.plugin.native import sleep
from confluent_kafka import KafkaError
from confluent_kafka.admin import NewTopic

from boost_broker_kafka.cluster import Cluster, Topic
from boost_broker_kafka.config import OVERHEAD
from boost_broker_kafka.ladder import RUNGS
from boost_broker_kafka.plugin import KafkaOptions
from boost_broker_kafka.topics import delay_topic, topic_of

OLDEST: Final = "2.8"
_DEFAULT_LARGEST: Final = 1_048_588
_LOOK: Final = 0.02
_FORBIDDEN: Final = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)


def declare(cluster: Cluster, options: KafkaOptions, queues: Sequence[QueueSpec]) -> None:
    """Make what is missing of the queues' topics, and wait until it can be used. Raises ``BrokerUnavailable``."""
    wanted = dict(pair for queue in queues for pair in _topics(queue, options))
    found = cluster.describe(list(wanted))
    for topic, one in found.items():
        if isinstance(one, KafkaError) and one.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise _not_usable(topic, one, options)
    missing = [topic for topic, one in found.items() if isinstance(one, KafkaError)]
    made = _make(cluster, options, {topic: wanted[topic] for topic in missing})
    others = [topic for topic in wanted if topic not in made]
    for topic, partitions in _ready(cluster, options, list(wanted)).items():
        if topic in others:
            _check_order(topic, partitions, wanted[topic])
    _check_sizes(cluster, options, others)


def _topics(queue: QueueSpec, options: KafkaOptions) -> list[tuple[str, int]]:
    """Return the topics of a queue, with how many partitions each is to have."""
    if queue.kind is QueueKind.DEAD:
        return [(topic_of(queue.name), 1)]
    return [(topic_of(queue.name), options.partitions), (delay_topic(queue.name), RUNGS)]


def _make(cluster: Cluster, options: KafkaOptions, topics: dict[str, int]) -> set[str]:
    """Make topics; return which were made, and not by somebody else meanwhile."""
    if not topics:
        return set()
    config = {
        "cleanup.policy": "delete",
        "max.message.bytes": str(max(_DEFAULT_LARGEST, options.max_body + OVERHEAD)),
        "retention.ms": "-1" if options.retention is None else str(round(options.retention * 1000)),
    }
    if options.min_insync is not None:
        config["min.insync.replicas"] = str(options.min_insync)
    replication = -1 if options.replication is None else options.replication
    asked = cluster.client.create_topics(
        [NewTopic(topic, partitions, replication, config=config) for topic, partitions in topics.items()],
        operation_timeout=options.timeout,
        request_timeout=options.timeout,
    )
    outcomes = cluster.outcomes(asked)
    for topic, error in outcomes.items():
        if isinstance(error, KafkaError) and error.code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise _not_made(topic, error, options)
    return {topic for topic, outcome in outcomes.items() if outcome is None}


def _ready(cluster: Cluster, options: KafkaOptions, topics: list[str]) -> dict[str, int]:
    """Return how many partitions topics have, once each one has a leader: the first messages would find none."""
    deadline = time.monotonic() + options.timeout
    while True:
        found = cluster.describe(topics)
        _check_ids(found)
        counts = {topic: one.partitions for topic, one in found.items() if isinstance(one, Topic) and one.partitions}
        if len(counts) == len(topics):
            return counts
        if time.monotonic() > deadline:
            topic, state = next((topic, one) for topic, one in found.items() if topic not in counts)
            why = state.str() if isinstance(state, KafkaError) else "a partition has no leader"
            raise BrokerUnavailable("kafka", f"topic {topic!r} is there, but can't be used: {why}")
        sleep(_LOOK)


def _check_ids(found: dict[str, Topic | KafkaError]) -> None:
    nameless = [topic for topic, one in found.items() if isinstance(one, Topic) and not one.log]
    if nameless:
        problem = f"topic {nameless[0]!r} has no id, as topics have since Kafka {OLDEST}"
        fix = "Upgrade the servers: by its id a topic is told from a former one that was deleted."
        raise BrokerUnavailable("kafka", problem, fix)


def _check_order(topic: str, partitions: int, wanted: int) -> None:
    if wanted == 1 and partitions > 1:
        problem = f"topic {topic!r} has {partitions} partitions, where partitions=1 promises the order of a whole queue"
        raise BrokerUnavailable("kafka", problem, f"Set partitions={partitions}, or delete the topic when it is empty.")


def _check_sizes(cluster: Cluster, options: KafkaOptions, topics: list[str]) -> None:
    need = options.max_body + OVERHEAD
    for topic, settings in (cluster.settings(topics) if topics else {}).items():
        most = int(settings["max.message.bytes"])
        if most < need:
            raise BrokerUnavailable(
                "kafka",
                f"topic {topic!r} takes {most:,} bytes at most, less than max_body={options.max_body:,}",
                f"Raise the topic's max.message.bytes to {need:,}, or set max_body={max(0, most - OVERHEAD)}.",
            )


def _who(options: KafkaOptions) -> str:
    return f"user {options.address.username!r}" if options.address.username else "a client that doesn't log in"


def _not_usable(topic: str, error: KafkaError, options: KafkaOptions) -> BrokerUnavailable:
    if error.code() in _FORBIDDEN:
        problem = f"{_who(options)} has no permission on topic {topic!r}"
        return BrokerUnavailable("kafka", problem, "Allow Describe, Read, Write and Create on it.")
    return BrokerUnavailable("kafka", f"topic {topic!r}: {error.str()}")


def _not_made(topic: str, error: KafkaError, options: KafkaOptions) -> BrokerUnavailable:
    problem = f"topic {topic!r} can't be made: {error.str()}"
    if error.code() in _FORBIDDEN:
        problem = f"topic {topic!r} is missing, and {_who(options)} may not make it"
        return BrokerUnavailable("kafka", problem, "Have it made, or allow Create on it.")
    if error.code() == KafkaError.INVALID_REPLICATION_FACTOR:
        return BrokerUnavailable("kafka", problem, "Set replication to the number of servers at most.")
    if error.code() == KafkaError.TOPIC_EXCEPTION and "collides" in error.str():
        return BrokerUnavailable("kafka", problem, "To Kafka a dot and an underscore are the same: rename one queue.")
    return BrokerUnavailable("kafka", problem)
