"""How often messages were given back.

The server counts how often it handed a message over, and not how that ended. So who gives one back notes it first, in a
stream that all queues share; what remains of the count are owners that died.

Deaths must be certain. Where a note can't be stored, since JetStream has no room, the time of that is written into the
stream's metadata, which need none. Nobody knows about older messages without a later note: counting begins anew.
"""

from __future__ import annotations

import base64
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
from boost_core.plugin import BrokerUnavailable, Delivery
from nats.js.errors import APIError

from boost_broker_nats.answers import Answer
from boost_broker_nats.connection import Connection, Post
from boost_broker_nats.place import STREAMS, SUBJECTS, escape
from boost_broker_nats.streams import IN_USE, Streams, epoch

log = logging.getLogger("boost.broker.nats")

STREAM: Final = f"{STREAMS}=releases"  # no queue's: its name would be escaped in capitals
SUBJECT: Final = f"{SUBJECTS}=releases."

KEPT_SECONDS: Final = 30 * 24 * 3600
"""A note outlives its message so long where nobody removes it."""

GAP: Final = "boost.gap"
"""The stream's metadata say under this name when a note couldn't be stored, by the server's clock."""

NO_MESSAGE: Final = 10037
"""JetStream's code for a message that isn't in its stream."""

_NANOSECONDS: Final = 1_000_000_000


async def make_notes(streams: Streams) -> dict[str, Any]:
    """Have the stream of notes exist, which keeps one a message, the latest; return its facts."""
    config = {
        "name": STREAM,
        "subjects": [f"{SUBJECT}>"],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_msgs_per_subject": 1,
        "max_age": KEPT_SECONDS * _NANOSECONDS,
        "num_replicas": streams.options.replicas,
    }
    try:
        return await streams.connection.api(f"STREAM.CREATE.{STREAM}", **config)
    except APIError as error:
        if error.err_code != IN_USE:
            raise streams.refused(f"stream {STREAM!r}", error) from error
    return await streams.connection.api(f"STREAM.INFO.{STREAM}")  # others may keep it longer, or more copies of it


@attrs.frozen
class Releases:
    """Writes notes and reads them, a batch in one round trip.

    ``made`` says when each queue's consumer was made: one that is made anew counts anew.
    """

    streams: Streams
    made: Mapping[str, str]

    async def note(self, deliveries: Sequence[Delivery]) -> None:
        """Note that these are about to be given back once more; raise ``BrokerUnavailable`` where nothing can be."""
        if not await self._write([(one, one.receipt.released + 1) for one in deliveries]):
            await self._note_gap()

    async def count_deaths(self, deliveries: Sequence[Delivery]) -> None:
        """Set ``deaths`` of those that had owners before; it stays 0 where the notes aren't certain."""
        repeated = [one for one in deliveries if one.receipt.handed_over > 1]
        if repeated:
            try:
                await self._count_deaths(repeated)
            except BrokerUnavailable as error:
                log.debug("deaths can't be counted: %s", error)

    async def _count_deaths(self, repeated: Sequence[Delivery]) -> None:
        verb = f"$JS.API.STREAM.MSG.GET.{STREAM}"
        questions: list[Post] = [
            (verb, json.dumps({"last_by_subj": self._subject(one)}).encode(), None) for one in repeated
        ]
        batch = await self._connection.post([*questions, (f"$JS.API.STREAM.INFO.{STREAM}", b"", None)])
        gap, doubtful = _gap(batch.answers[-1]), []
        for one, answer in zip(repeated, batch.answers[:-1], strict=True):
            note = _read(answer)
            if note is None or gap is None:
                continue
            released, noted = note
            certain = max(noted, one.receipt.stored) > gap
            one.receipt.released = released if certain else one.receipt.handed_over - 1
            one.deaths = max(0, one.receipt.handed_over - 1 - one.receipt.released)
            if not certain:
                doubtful.append(one)
        if doubtful:
            await self._write([(one, one.receipt.released) for one in doubtful])

    def forget(self, deliveries: Sequence[Delivery]) -> list[Post]:
        """Return what to tell the server so that the notes of ended messages go."""
        return [_forgetting(self._subject(one)) for one in deliveries if one.receipt.handed_over > 1]

    async def _write(self, numbers: Sequence[tuple[Delivery, int]]) -> bool:
        """Tell whether each of the numbers could be noted."""
        posts: list[Post] = [(self._subject(one), str(number).encode(), None) for one, number in numbers]
        batch = await self._connection.post(posts)
        return all(isinstance(answer, bytes) and b'"error":' not in answer for answer in batch.answers)

    async def _note_gap(self) -> None:
        told = await make_notes(self.streams)
        config = told["config"]
        changed = {**config, "metadata": {**config.get("metadata", {}), GAP: told.get("ts", "")}}
        try:
            await self._connection.api(f"STREAM.UPDATE.{STREAM}", **changed)
        except APIError as error:
            raise self.streams.refused(f"metadata for stream {STREAM!r}", error) from error

    @property
    def _connection(self) -> Connection:
        return self.streams.connection

    def _subject(self, delivery: Delivery) -> str:
        receipt = delivery.receipt
        return f"{_of_queue(receipt.stream)}{escape(self.made[delivery.queue])}.{receipt.sequence}"


def forget_all(stream: str) -> Post:
    """Return what to tell the server so that all notes of a queue go."""
    return _forgetting(f"{_of_queue(stream)}>")


def _of_queue(stream: str) -> str:
    return f"{SUBJECT}{stream.removeprefix(STREAMS)}."


def _forgetting(subjects: str) -> Post:
    return f"$JS.API.STREAM.PURGE.{STREAM}", json.dumps({"filter": subjects}).encode(), None


def _read(answer: Answer) -> tuple[int, float] | None:
    """Return what is noted and when (epoch seconds), zeros where nothing is; None where that isn't known."""
    if not isinstance(answer, bytes):
        return None
    told = json.loads(answer)
    if "message" in told:
        return int(base64.b64decode(told["message"]["data"])), epoch(told["message"]["time"])
    return (0, 0.0) if told["error"]["err_code"] == NO_MESSAGE else None


def _gap(answer: Answer) -> float | None:
    """Return until when (epoch seconds) notes may be missing: too old to be kept, or never stored; None for unknown."""
    told = json.loads(answer) if isinstance(answer, bytes) else {}
    if "config" not in told:
        return None
    kept, missed = told["config"]["max_age"], told["config"].get("metadata", {}).get(GAP)
    gone = time.time() - kept / _NANOSECONDS if kept else -math.inf
    return max(gone, epoch(missed) if missed else -math.inf)
