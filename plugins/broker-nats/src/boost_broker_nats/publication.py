"""Frames on their way to the server: how they are written, and what became of each."""

from __future__ import annotations

import datetime
import json
import math
import time
from collections.abc import Sequence
from typing import Final

from boost_core.plugin import Frame, PublishError
from nats.js.api import Header

from boost_broker_nats import trouble
from boost_broker_nats.answers import Batch, Denied, NobodyThere
from boost_broker_nats.connection import Connection, Post
from boost_broker_nats.place import Place, escape

WINDOW: Final = 500
"""How many messages are sent before their confirmations are waited for."""

ID_HEADER: Final = "Boost-Id"


class Publication:
    """One batch. Each message has an answer of its own, so that what failed and what is unsure is known exactly."""

    def __init__(self, broker: str, max_body: int) -> None:
        self._broker, self._max_body = broker, max_body
        self._posts: list[Post] = []
        self._failed: dict[int, str] = {}
        self._unsure: list[int] = []

    def write(self, frames: Sequence[Frame], now: Sequence[float]) -> None:
        """Write the frames as messages; ``now`` is the server's time for each, in epoch seconds."""
        for index, (frame, time_there) in enumerate(zip(frames, now, strict=True)):
            self._posts.append(_post(frame, time_there))
            if len(frame.body) > self._max_body:
                self._failed[index] = f"a body of {len(frame.body):,} bytes is over {self._max_body:,}"

    async def send(self, connection: Connection, ends: float) -> None:
        """Send what fits, until the deadline (monotonic) at the latest; what wasn't tried has failed."""
        fitting = [index for index in range(len(self._posts)) if index not in self._failed]
        for start in range(0, len(fitting), WINDOW):
            window = fitting[start : start + WINDOW]
            left = ends - time.monotonic()
            if self._unsure or left <= 0:
                self._failed.update(dict.fromkeys(window, "there was no time left"))
                continue
            self._take(window, await connection.post([self._posts[index] for index in window], left))

    def _take(self, window: Sequence[int], batch: Batch) -> None:
        for position, (index, answer) in enumerate(zip(window, batch.answers, strict=True)):
            if position >= batch.sent:
                self._failed[index] = "the connection was lost"
            elif answer is None:
                self._unsure.append(index)
            elif isinstance(answer, Exception):
                self._failed[index] = _reason(answer)
            elif b'"error":' in answer:
                self._failed[index] = trouble.refusal(json.loads(answer)["error"]["description"])

    def check(self) -> None:
        """Raise ``PublishError`` unless everything is stored."""
        if self._failed or self._unsure:
            problem = next(iter(self._failed.values()), "the server didn't confirm in time")
            if self._unsure:
                problem = "the connection was lost, or the server didn't confirm in time"
            raise PublishError(self._broker, problem, sorted(self._failed), self._unsure)


def _post(frame: Frame, now: float) -> Post:
    place, dedup_id = Place.of(frame.queue), escape(frame.dedup_id or frame.id)
    headers = {Header.MSG_ID.value: dedup_id, ID_HEADER: escape(frame.id)}
    ttl = None if frame.ttl is None else f"{max(1, math.ceil(frame.ttl))}s"  # the server counts in seconds
    if frame.delay <= 0:
        if ttl is not None:
            headers[Header.MSG_TTL.value] = ttl
        return place.jobs, frame.body, headers
    due = datetime.datetime.fromtimestamp(now + frame.delay, datetime.UTC).isoformat()
    headers[Header.SCHEDULE.value] = f"@at {due}"
    headers[Header.SCHEDULE_TARGET.value] = place.jobs
    if ttl is not None:
        headers[Header.SCHEDULE_TTL.value] = ttl
    return f"{place.later}{dedup_id}", frame.body, headers  # a subject holds one schedule: a repeat replaces it


def _reason(answer: Exception) -> str:
    if isinstance(answer, NobodyThere):
        return f"nobody keeps {answer}: its stream was deleted, or JetStream isn't ready"
    return f"the server forbids it: {answer}" if isinstance(answer, Denied) else str(answer)
