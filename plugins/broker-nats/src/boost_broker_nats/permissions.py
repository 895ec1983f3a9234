"""What a worker's user must be allowed, proven by messages that change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nats.js.api import Header

from boost_broker_nats.connection import Post
from boost_broker_nats.place import CONSUMER, Place
from boost_broker_nats.receipt import EXTEND
from boost_broker_nats.releases import SUBJECT

_FOR_NONE: Final = {Header.EXPECTED_STREAM.value: "-"}
"""What makes every stream refuse a message: it is for one of another name."""


def proofs(queues: Sequence[str]) -> list[Post]:
    """Return messages to all that workers of these queues send to; ``tell`` raises for what is forbidden."""
    return [(f"{SUBJECT}-.0", b"", _FOR_NONE), *(post for queue in queues for post in _of_queue(Place.of(queue)))]


def _of_queue(place: Place) -> list[Post]:
    return [
        (place.jobs, b"", _FOR_NONE),  # next attempts, and dead letters
        (f"$JS.API.CONSUMER.MSG.NEXT.{place.stream}.{CONSUMER}", b"{", None),  # a request that can't be read
        (f"$JS.ACK.{place.stream}.{CONSUMER}.1.0.0.0.0", EXTEND, None),  # the lease of no message: they count from 1
    ]
