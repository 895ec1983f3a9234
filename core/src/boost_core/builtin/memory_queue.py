"""One queue of the broker ``memory``: its messages in the order in which they are fetched."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Iterator
from typing import Final, TypeAlias

from boost_core.types import Frame

Entry: TypeAlias = tuple[int, Frame, float]
"""A message: its place in the order of its level, the frame, and when it expires (monotonic, or inf)."""

_SWEEP_FROM: Final = 1024
"""A queue whose messages may expire is searched for expired ones when it has so many, and twice what was left."""


class _Level:
    """The messages of one priority: those that came back go before those nobody has fetched yet, all in place."""

    __slots__ = ("fresh", "returned")

    def __init__(self) -> None:
        self.fresh: deque[Entry] = deque()
        self.returned: list[Entry] = []

    def __len__(self) -> int:
        return len(self.fresh) + len(self.returned)

    def __iter__(self) -> Iterator[Entry]:
        return itertools.chain(sorted(self.returned), self.fresh)

    def take(self, count: int) -> list[Entry]:
        """Remove and return the first ``count``, or all that there are."""
        taken: list[Entry] = []
        while self.returned and len(taken) < count:
            taken.append(heapq.heappop(self.returned))
        fresh, count = self.fresh, count - len(taken)
        if count >= len(fresh):
            taken += fresh
            fresh.clear()
        else:
            taken += [fresh.popleft() for _ in range(count)]
        return taken

    def drop_expired(self, now: float) -> None:
        """Forget what nobody fetched in time. The deque stays the same object: a publish in progress appends to it."""
        alive = [entry for entry in self.fresh if entry[2] > now]
        self.fresh.clear()
        self.fresh.extend(alive)
        self.returned = [entry for entry in self.returned if entry[2] > now]
        heapq.heapify(self.returned)


class _Levels(dict[int, _Level]):
    """A queue's levels by priority, made when first used; ``descending`` keeps them in the order of fetching."""

    def __init__(self) -> None:
        super().__init__({0: _Level()})
        self.descending = [self[0]]

    def __missing__(self, priority: int) -> _Level:
        level = self[priority] = _Level()
        self.descending = [self[known] for known in sorted(self, reverse=True)]
        return level


class MemoryQueue:
    """One queue: ready messages by level, and delayed ones by when they fall due (monotonic)."""

    __slots__ = ("delayed", "levels", "sweep_at")

    def __init__(self) -> None:
        self.levels = _Levels()
        self.delayed: list[tuple[float, Entry]] = []
        self.sweep_at = math.inf  # inf: no message here has ever had a time to live

    @property
    def ready(self) -> int:
        """How many messages could be fetched now."""
        return sum(map(len, self.levels.descending))

    def put_timed(self, place: int, frame: Frame, now: float) -> None:
        """Add a frame that has a delay or a time to live."""
        expires = math.inf
        if frame.ttl is not None:
            expires = now + frame.ttl
            self.sweep_at = min(self.sweep_at, _SWEEP_FROM)
        if frame.delay > 0:
            heapq.heappush(self.delayed, (now + frame.delay, (place, frame, expires)))
        else:
            self.levels[frame.priority].fresh.append((place, frame, expires))
        if self.ready + len(self.delayed) >= self.sweep_at:
            self.drop_expired(now)

    def put_back(self, entry: Entry) -> None:
        """Return a message that was fetched, to where it stood."""
        heapq.heappush(self.levels[entry[1].priority].returned, entry)

    def promote(self, now: float, places: Iterator[int]) -> None:
        """Make ready what is due; it takes its place behind what is ready already."""
        while self.delayed and self.delayed[0][0] <= now:
            _, (_, frame, expires) = heapq.heappop(self.delayed)
            self.levels[frame.priority].fresh.append((next(places), frame, expires))

    def take(self, count: int, now: float) -> list[Entry]:
        """Remove and return up to ``count`` ready messages, higher priorities first."""
        taken: list[Entry] = []
        for level in self.levels.descending:
            while level and len(taken) < count:
                entries = level.take(count - len(taken))
                if self.sweep_at != math.inf:
                    entries = [entry for entry in entries if entry[2] > now]
                taken += entries
        return taken

    def drop_expired(self, now: float) -> None:
        """Forget what nobody fetched in time; it is done at each doubling, so that it costs little a message."""
        if self.sweep_at == math.inf:
            return
        for level in self.levels.descending:
            level.drop_expired(now)
        self.delayed = [item for item in self.delayed if item[1][2] > now]
        heapq.heapify(self.delayed)
        self.sweep_at = max(_SWEEP_FROM, 2 * (self.ready + len(self.delayed)))
