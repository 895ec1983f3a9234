"""Looking at queues, and emptying them, without being one of their workers."""

from __future__ import annotations

import asyncio
import base64
from typing import Any, Final

from boost_core.plugin import Depth, Frame
from nats.js.api import Header
from nats.js.errors import NotFoundError

from boost_broker_nats.place import STREAMS, SUBJECTS, Place
from boost_broker_nats.publication import ID_HEADER
from boost_broker_nats.pull import Pull
from boost_broker_nats.receipt import ACK
from boost_broker_nats.releases import Releases, forget_all
from boost_broker_nats.streams import Streams

MOST_AT_ONCE: Final = 500
"""How many messages are taken together to be ended."""

LAST_LOOK_SECONDS: Final = 0.25
"""How long another message is waited for before a queue counts as empty."""


async def depth(streams: Streams, queue: str) -> Depth:
    """Return a queue's depth out of two numbers of its stream and one of its consumer.

    The server counts what was given back, or left by a dead worker, as running until it is handed out again.
    """
    place = Place.of(queue)
    try:
        stream, consumer = await asyncio.gather(streams.info(place), streams.consumer(place))
    except NotFoundError:
        return Depth()
    state = stream["state"]
    jobs = (state.get("subjects") or {}).get(place.jobs, 0)
    running = min(jobs, consumer["num_ack_pending"]) if consumer else 0
    return Depth(ready=jobs - running, delayed=state["messages"] - jobs, running=running)


async def purge(streams: Streams, queue: str) -> int:
    """Remove what waits and what is due later; return how many."""
    place = Place.of(queue)
    try:
        removed = await _purge(streams, place, f"{place.later}*")
        consumer = await streams.consumer(place)
        if consumer is None or not consumer["num_ack_pending"]:
            # What a worker takes in between goes as well: it runs to its end, but not again if the worker dies.
            removed += await _purge(streams, place, place.jobs)
            await streams.connection.tell([forget_all(place.stream)])
            return removed
    except NotFoundError:
        return 0
    return removed + await _take_and_end(streams, queue, Releases(streams, {queue: consumer["created"]}))


async def _purge(streams: Streams, place: Place, subject: str) -> int:
    told = await streams.connection.api(f"STREAM.PURGE.{place.stream}", filter=subject)
    return int(told["purged"])


async def _take_and_end(streams: Streams, queue: str, releases: Releases) -> int:
    """End what can be had of a queue whose running jobs must stay: purging would take them too."""
    arrival, removed = asyncio.Event(), 0
    pull = Pull(streams.connection, queue, streams.options.lease, LAST_LOOK_SECONDS, arrival.set)
    await pull.ask(MOST_AT_ONCE)
    while pull.coming:
        await asyncio.wait_for(arrival.wait(), LAST_LOOK_SECONDS + streams.options.timeout)
        arrival.clear()
        found = pull.take(MOST_AT_ONCE)
        await streams.connection.tell([*((one.receipt.reply, ACK, None) for one in found), *releases.forget(found)])
        removed += len(found)
        if found:
            await pull.ask(MOST_AT_ONCE)
    await pull.stop()  # nothing is open any more, so nothing can have come
    return removed


async def peek(streams: Streams, queue: str, n: int) -> list[Frame]:
    """Return the next ``n`` messages that no worker has had, one question each: the next one is known by the last."""
    place, frames = Place.of(queue), list[Frame]()
    try:
        consumer = await streams.consumer(place)
        sequence = consumer["delivered"]["stream_seq"] + 1 if consumer else 1
        while len(frames) < n:
            verb = f"STREAM.MSG.GET.{place.stream}"
            message = (await streams.connection.api(verb, seq=sequence, next_by_subj=place.jobs))["message"]
            frames.append(_frame(queue, message))
            sequence = message["seq"] + 1
    except NotFoundError:  # no stream, or no further message
        pass
    return frames


def _frame(queue: str, message: dict[str, Any]) -> Frame:
    headers = base64.b64decode(message.get("hdrs", "")).decode("utf-8", "replace")
    known = dict(line.partition(": ")[::2] for line in headers.split("\r\n"))
    body = base64.b64decode(message.get("data", ""))
    return Frame(known.get(ID_HEADER, str(message["seq"])), queue, body, dedup_id=known.get(Header.MSG_ID.value))


async def queues(streams: Streams) -> list[str]:
    """Return the names of all queues: each stream's description is its queue's name."""
    names, offset, total = list[str](), 0, 1
    while offset < total:
        told = await streams.connection.api("STREAM.LIST", offset=offset, subject=f"{SUBJECTS}>")
        total, found = told["total"], [stream["config"] for stream in told.get("streams") or ()]
        offset += len(found) or total
        names += [config.get("description", "") for config in found if config["name"].startswith(STREAMS)]
    return sorted(filter(None, names))
