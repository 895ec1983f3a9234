"""Delayed messages: where each waits, and when it goes on.

A queue's delay topic has one partition a rung, for delays from ``8 ** rung`` seconds to eight times as long. Whoever
reads a rung keeps some of it in sight, and sends each message on when it is due. What lies beyond sight isn't late
either: while there is more to see than is let in, those that waited ``8 ** rung`` seconds step down to the rung of what
is left of their delay.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from typing import Final

import attrs

RUNGS: Final = 8
RATIO: Final = 8
IN_SIGHT: Final = 1000
BYTES_IN_SIGHT: Final = 1024 * 1024


def rung_of(delay: float) -> int:
    """Return the rung on which a message waits that has so many seconds left."""
    return 0 if delay < RATIO else min(RUNGS - 1, int(math.log(delay, RATIO)))


@attrs.define(eq=False)
class Waiting:
    """A delayed message in sight: when it is due and when it came here (seconds since the epoch)."""

    offset: int
    due: float
    since: float
    key: bytes | None
    body: bytes
    gone: bool = False


class Rung:
    """What is in sight of one partition. One thread."""

    def __init__(self, number: int) -> None:
        self._longest = float(RATIO**number)
        self._by_due: list[tuple[float, int, Waiting]] = []
        self._in_line: deque[Waiting] = deque()
        self._sequence = itertools.count()
        self._count = 0
        self._bytes = 0

    @property
    def empty(self) -> bool:
        """Whether nothing is in sight."""
        return self._count == 0

    @property
    def full(self) -> bool:
        """Whether no more is to be let in."""
        return self._count >= IN_SIGHT or self._bytes >= BYTES_IN_SIGHT

    def add(self, waiting: Waiting) -> None:
        """Take a message in sight."""
        heapq.heappush(self._by_due, (waiting.due, next(self._sequence), waiting))
        self._in_line.append(waiting)
        self._count += 1
        self._bytes += len(waiting.body)

    def next_time(self) -> float:
        """Return when (seconds since the epoch) ``take`` has something next; infinity if nothing waits."""
        times = [self._by_due[0][0]] if self._by_due else []
        if self.full and self._in_line:
            times.append(self._in_line[0].since + self._longest)
        return min(times, default=math.inf)

    def take(self, now: float, most: int) -> list[Waiting]:
        """Remove and return what goes on now: what is due, and what makes room, ``most`` at once."""
        taken: list[Waiting] = []
        while self._by_due and self._by_due[0][0] <= now and len(taken) < most:
            waiting = heapq.heappop(self._by_due)[2]
            if not waiting.gone:
                taken.append(self._go(waiting))
        while self.full and len(taken) < most and self._first_in_line().since + self._longest <= now:
            taken.append(self._go(self._in_line[0]))
        self._forget_gone()
        return taken

    def _go(self, waiting: Waiting) -> Waiting:
        waiting.gone = True
        self._count -= 1
        self._bytes -= len(waiting.body)
        return waiting

    def _first_in_line(self) -> Waiting:
        while self._in_line[0].gone:
            self._in_line.popleft()
        return self._in_line[0]

    def _forget_gone(self) -> None:
        while self._in_line and self._in_line[0].gone:
            self._in_line.popleft()
        while self._by_due and self._by_due[0][2].gone:
            heapq.heappop(self._by_due)
