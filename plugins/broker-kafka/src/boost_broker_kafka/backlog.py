"""How much of a queue is still to be done."""

from __future__ import annotations

from boost_core.plugin import BrokerUnavailable
from confluent_kafka import KafkaError

from boost_broker_kafka.cluster import Cluster, Partition, Span
from boost_broker_kafka.topics import delay_topic, topic_of


def partitions(cluster: Cluster, queue: str) -> list[Partition]:
    """Return the partitions of a queue and of its delayed messages; none of a queue that was never declared."""
    found: list[Partition] = []
    for topic, count in cluster.describe([topic_of(queue), delay_topic(queue)]).items():
        if isinstance(count, int):
            found += [(topic, number) for number in range(count)]
        elif count.code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise BrokerUnavailable("kafka", f"topic {topic!r}: {count.str()}")
    return found


def counts(cluster: Cluster, queue: str) -> tuple[int, int]:
    """Return how many messages of a queue are not done, and how many are delayed."""
    totals = {topic_of(queue): 0, delay_topic(queue): 0}
    wanted = partitions(cluster, queue)
    for (topic, _), span in (cluster.spans(wanted) if wanted else {}).items():
        totals[topic] += to_do(span)
    ready, waiting = totals.values()
    return ready, waiting


def to_do(span: Span) -> int:
    """Return how many messages of a partition are neither deleted nor done."""
    first = max(span.start, span.committed)
    ranges = _done_ahead(span.committed, span.metadata)
    done = sum(max(0, end - max(start, first)) for start, end in ranges if end <= span.end)
    return max(0, span.end - first - done)


def _done_ahead(base: int, metadata: str) -> list[tuple[int, int]]:
    """Return the ranges that an ``OffsetLedger`` notes as done beyond ``base``; see there for how."""
    mark, _, rest = metadata.partition(" ")
    number, _, pairs = rest.partition(" ")
    ranges: list[tuple[int, int]] = []
    if mark != "boost1" or number != f"{base:x}":
        return ranges
    end = base
    for pair in pairs.split(","):
        left_out, done = (int(count, 16) for count in pair.split("."))
        ranges.append((end + left_out, end + left_out + done))
        end += left_out + done
    return ranges
