"""What the server keeps of a frame: its id, and its body."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from boost_core.plugin import Frame

MOST_AT_ONCE: Final = 1000
"""Messages in one run of a script: Lua takes a few thousand arguments at once, and nobody else is served meanwhile."""

MOST_BYTES: Final = 16 * 1024 * 1024
"""Bytes of bodies in one run, unless a single body has more."""

PLACES: Final = 1 << 44
"""Places of one priority, as in queue.lua."""

_LENGTH_BYTES: Final = 4


def pack(frame: Frame) -> bytes:
    """Return a frame's id, behind its length in four bytes, and its body."""
    identity = frame.id.encode()
    return b"%b%b%b" % (len(identity).to_bytes(_LENGTH_BYTES, "big"), identity, frame.body)


def body_of(record: bytes) -> bytes:
    """Return the body of a record; all of it where it is none of ours."""
    start = _LENGTH_BYTES + int.from_bytes(record[:_LENGTH_BYTES], "big")
    return record[start:] if start <= len(record) else record


def id_of(record: bytes) -> str:
    """Return the id of a record; nothing where it is none of ours."""
    end = _LENGTH_BYTES + int.from_bytes(record[:_LENGTH_BYTES], "big")
    return record[_LENGTH_BYTES:end].decode(errors="replace") if end <= len(record) else ""


def asks(frame: Frame) -> tuple[Any, ...]:
    """Return priority, delay and time to live, in milliseconds, as scripts take them."""
    return frame.priority, milliseconds(frame.delay), "" if frame.ttl is None else milliseconds(frame.ttl)


def publishing(frames: Sequence[Frame], window: int) -> list[Any]:
    """Return the arguments of the operation ``publish``."""
    arguments: list[Any] = [len(frames), window, *map(pack, frames)]
    if window:
        arguments += [frame.dedup_id or "" for frame in frames]
    for number, frame in enumerate(frames, 1):
        if frame.priority or frame.delay > 0 or frame.ttl is not None:
            arguments += (number, *asks(frame))
    return arguments


def milliseconds(seconds: float) -> int:
    """Return whole milliseconds, at least one for any time at all."""
    return math.ceil(max(0.0, seconds) * 1000)


def priority_of(place: bytes) -> int:
    """Return the priority that a place in line tells; 0 where it is an entry of a stream, or a foreigner's."""
    try:
        return -(int(place) // PLACES)
    except ValueError:
        return 0


def bounded(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield where the parts begin and end that bodies of these sizes are sent in."""
    start = size = 0
    for end, more in enumerate(sizes):
        if end > start and (end - start >= MOST_AT_ONCE or size + more > MOST_BYTES):
            yield start, end
            start, size = end, 0
        size += more
    if start < len(sizes):
        yield start, len(sizes)
