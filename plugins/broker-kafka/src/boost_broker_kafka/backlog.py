"""How much of a queue is still to be done."""

from __future__ import annotations

from collections.abc import Mapping

from boost_core.plugin import BrokerUnavailable
from boost_core.plugin.offsetledger import read_commit
from confluent_kafka import KafkaError

from boost_broker_kafka.cluster import Cluster, Partition, Span, Topic, left_until
from boost_broker_kafka.topics import delay_topic, topic_of


def partitions(cluster: Cluster, queue: str, deadline: float) -> list[Partition]:
    """Return the partitions of a queue and of its delayed messages; none of a queue that was never declared."""
    return _partitions(_topics(cluster, queue, deadline))


def counts(cluster: Cluster, queue: str, deadline: float) -> tuple[int, int]:
    """Return how many messages of a queue are not done, and how many are delayed."""
    totals = {topic_of(queue): 0, delay_topic(queue): 0}
    topics = _topics(cluster, queue, deadline)
    wanted = _partitions(topics)
    for (topic, _), span in (cluster.spans(wanted, deadline) if wanted else {}).items():
        totals[topic] += _to_do(span, topics[topic].log)
    ready, waiting = totals.values()
    return ready, waiting


def _topics(cluster: Cluster, queue: str, deadline: float) -> dict[str, Topic]:
    found: dict[str, Topic] = {}
    for topic, one in cluster.describe([topic_of(queue), delay_topic(queue)], left_until(deadline)).items():
        if isinstance(one, Topic):
            found[topic] = one
        elif one.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise BrokerUnavailable("kafka", f"topic {topic!r}: {one.str()}")
    return found


def _partitions(topics: Mapping[str, Topic]) -> list[Partition]:
    return [(topic, number) for topic, one in topics.items() for number in range(one.partitions)]


def _to_do(span: Span, log: str) -> int:
    """Return how many messages of a partition are neither deleted nor done."""
    base, ranges = read_commit(span.committed, span.metadata, log)
    first = max(span.start, base)
    done = sum(max(0, end - max(start, first)) for start, end in ranges if end <= span.end)
    return max(0, span.end - first - done)
