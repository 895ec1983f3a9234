"""What a broker can do. Absent means refused or visibly emulated, never ignored."""

from __future__ import annotations

import enum


class Capability(enum.Enum):
    """One thing a broker can do; each member's ``doc`` is its one-sentence meaning."""

    doc: str

    def __new__(cls, value: str, doc: str) -> Capability:
        member = object.__new__(cls)
        member._value_ = value
        member.doc = doc
        return member

    ACK = ("ack", "A delivery stays the worker's until it is acknowledged, and comes back if it never is.")
    PERSISTENT = ("persistent", "A published message outlives the processes that published and carry it.")
    REPLACE = ("replace", "A delivery is atomically replaced by another frame: next attempt or dead letter.")
    LEASES = ("leases", "Deliveries are held by a lease that core must extend.")
    DELAY = ("delay", "A frame can be published now and become fetchable later.")
    PRIORITY = ("priority", "A frame of higher priority is fetched before those of lower priority.")
    ORDERED = ("ordered", "One consumer fetches the frames of a queue in the order they were published.")
    KEY_ORDERED = ("key_ordered", "Frames of one key are fetched in the order they were published.")
    FAIR = ("fair", "Keys share a queue in turn, so that a busy one doesn't starve the others.")
    DEDUP = ("dedup", "A frame published again with the same dedup id is stored once.")
    BATCH_PUBLISH = ("batch_publish", "Many frames are published in one round trip.")
    BATCH_FETCH = ("batch_fetch", "Many deliveries are fetched in one round trip.")
    BATCH_ACK = ("batch_ack", "Many deliveries are settled in one round trip.")
    DEPTH = ("depth", "The number of ready, delayed and running messages of a queue can be read.")
    PURGE = ("purge", "All waiting messages of a queue can be removed at once.")
    PEEK = ("peek", "Waiting messages, and the names of queues, can be read without taking them.")
    TTL = ("ttl", "A frame that nobody fetched within its time to live is removed.")
