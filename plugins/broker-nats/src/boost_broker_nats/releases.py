"""How often messages were given back.

The server counts how often it handed a message over, and not how that ended. So who gives one back notes it first, in a
stream that all queues share, under the message's number; what remains of the count are owners that died.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Sequence
from typing import Any, Final

import attrs
from boost_core.plugin import BrokerUnavailable, Delivery

from boost_broker_nats.connection import Connection, Post
from boost_broker_nats.place import STREAMS, SUBJECTS

log = logging.getLogger("boost.broker.nats")

STREAM: Final = f"{STREAMS}=releases"  # no queue's: its name would be escaped in capitals
SUBJECT: Final = f"{SUBJECTS}=releases."

KEPT_SECONDS: Final = 30 * 24 * 3600
"""A note outlives its message so long where nobody removes it."""

_NANOSECONDS: Final = 1_000_000_000


def stream_config(replicas: int) -> dict[str, Any]:
    """Return how the stream of notes is made: one note a message, the latest."""
    return {
        "name": STREAM,
        "subjects": [f"{SUBJECT}>"],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_age": KEPT_SECONDS * _NANOSECONDS,
        "num_replicas": replicas,
    }


@attrs.frozen
class Releases:
    """Writes notes and reads them, a batch in one round trip."""

    connection: Connection

    async def note(self, deliveries: Sequence[Delivery]) -> None:
        """Note that these are about to be given back once more."""
        await self.connection.post(
            [(_subject(one), str(one.receipt.released + 1).encode(), None) for one in deliveries]
        )

    async def count_deaths(self, deliveries: Sequence[Delivery]) -> None:
        """Set ``deaths`` of those that had owners before; where the notes can't be read it stays 0."""
        repeated = [one for one in deliveries if one.receipt.handed_over > 1]
        if not repeated:
            return
        verb = f"$JS.API.STREAM.MSG.GET.{STREAM}"
        questions = [(verb, json.dumps({"last_by_subj": _subject(one)}).encode(), None) for one in repeated]
        try:
            answers = (await self.connection.post(questions)).answers
        except BrokerUnavailable as error:
            log.debug("deaths can't be counted: %s", error)
            return
        for one, answer in zip(repeated, answers, strict=True):
            if isinstance(answer, bytes):
                one.receipt.released = _noted(json.loads(answer))
                one.deaths = max(0, one.receipt.handed_over - 1 - one.receipt.released)

    def forget(self, deliveries: Sequence[Delivery]) -> list[Post]:
        """Return what to tell the server so that the notes of ended messages go."""
        return [
            (f"$JS.API.STREAM.PURGE.{STREAM}", json.dumps({"filter": _subject(one)}).encode(), None)
            for one in deliveries
            if one.receipt.released
        ]


def _subject(delivery: Delivery) -> str:
    return f"{SUBJECT}{delivery.receipt.stream.removeprefix(STREAMS)}.{delivery.receipt.sequence}"


def _noted(answer: dict[str, Any]) -> int:
    return int(base64.b64decode(answer["message"]["data"])) if "message" in answer else 0
