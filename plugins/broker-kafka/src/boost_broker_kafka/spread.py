"""Deals messages without a key out to the partitions of their topic."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from typing import Final

ENOUGH_EACH: Final = 16
"""Once each partition got so many messages within a second, all workers have something to do."""

SECONDS: Final = 1.0
TOGETHER: Final = 64


class Spread:
    """Gives each partition its part of a batch, and single messages to one after the other. Any thread.

    Each partition costs a request of its own. So in bulk, when all of them have plenty, messages go to one partition
    by the dozen, and to the next one with the next batch.
    """

    def __init__(self, partitions: Callable[[str], int]) -> None:
        self._partitions = partitions
        self._turns = itertools.count(random.randrange(1024))  # or short-lived processes would all begin with the first
        self._dealt: dict[str, tuple[float, int]] = {}

    def deal(self, topic: str, count: int) -> Iterator[int]:
        """Return the partitions of ``count`` messages, neighbours on the same one; -1 where the topic isn't known."""
        partitions = self._partitions(topic)
        if not partitions:
            return itertools.repeat(-1, count)
        used = min(partitions, count)
        if self._recent(topic, count) > ENOUGH_EACH * partitions:
            used = min(used, max(1, count // TOGETHER))
        turns = [next(self._turns) % partitions for _ in range(used)]
        return (turns[index * used // count] for index in range(count))

    def _recent(self, topic: str, count: int) -> int:
        """Count messages; return how many there were before, since up to a second ago."""
        now = time.monotonic()
        since, before = self._dealt.get(topic, (now, 0))
        if now - since > SECONDS:
            since, before = now, 0
        self._dealt[topic] = (since, before + count)
        return before
