"""What makes up a subscription, beside the reader that may have to be replaced."""

from __future__ import annotations

import attrs
from boost_core.plugin import Lost, new_id

from boost_broker_kafka.cluster import Cluster
from boost_broker_kafka.commits import Commits
from boost_broker_kafka.holdings import Holdings
from boost_broker_kafka.mover import Mover
from boost_broker_kafka.plugin import KafkaOptions


@attrs.frozen(kw_only=True)
class Parts:
    """What a reader works with; they outlive it.

    ``member`` is who it is in the group. A consumer that lost its session, or stands in for one that broke, comes back
    as that at once; as somebody new it would wait for the session of its former life to end. ``gone`` are the queues
    whose topic was deleted.
    """

    name: str
    options: KafkaOptions
    cluster: Cluster
    holdings: Holdings
    mover: Mover
    commits: Commits
    lost: Lost
    member: str = attrs.field(factory=new_id)
    gone: set[str] = attrs.field(factory=set)
