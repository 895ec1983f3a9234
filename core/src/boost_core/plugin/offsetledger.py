"""Single acks for logs, which keep one number a partition: up to where everything is done.

What is done beyond that number travels in the metadata of the commit, so that the partition's next owner skips it::

    boost1 <the number> <left out>.<done>,<left out>.<done>,... <the log>

in hexadecimal; each pair goes on where the one before ended: so many offsets to be done yet, then so many done. The log
is told from former ones of its name, whose numbers mean nothing to it; it is left out where it has no such identity.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from boost_core.native import Lock

LARGEST_METADATA: Final = 4096
"""How many bytes of metadata a commit may carry; what Kafka's brokers take unless told otherwise."""

_MARK: Final = "boost1"

Ranges: TypeAlias = Sequence[tuple[int, int]]
"""First offset and the one after the last; in order and apart from each other."""


def read_commit(base: int, metadata: str, log: str = "") -> tuple[int, Ranges]:
    """Return up to where all of ``log`` is done, and what beyond that, as ``base`` and ``metadata`` of a commit say it.

    Metadata that isn't of a ledger, or not of this ``base``, says nothing. What was committed of another log doesn't
    count for this one: nothing of it is done.
    """
    mark, number, pairs, of, *rest = (*metadata.split(" "), "", "", "")
    if mark != _MARK or number != f"{base:x}" or any(rest):
        return base, ()
    if of and log and of != log:
        return 0, ()
    return base, _decode(base, pairs)


class OffsetLedger:
    """Takes acks in any order, and says what may be committed. Any thread may call any method.

    Within one assignment offsets are begun in the order of the log; what lies between two of them doesn't exist there
    (a transaction's marker, a compacted record) and counts as done.
    """

    def __init__(self) -> None:
        self._partitions: dict[Hashable, _Assigned] = {}
        self._generations = itertools.count(1)
        self._lock = Lock()

    def assign(self, partition: Hashable, base: int, metadata: str | None = None, log: str = "") -> int:
        """Take a partition over; return the generation that its acks must name.

        ``base`` and ``metadata`` are what the last owner committed; ``read_commit`` says from where on to read. ``log``
        has no spaces, and tells the log from a former one of the same name, such as by the id of a topic.
        """
        with self._lock:
            generation = next(self._generations)
            self._partitions[partition] = _Assigned(generation, base, metadata or "", log)
            return generation

    def revoke(self, partition: Hashable) -> None:
        """Give a partition up: later acks of it are refused. Commit before, or what was done since is done again."""
        with self._lock:
            self._partitions.pop(partition, None)

    def generation(self, partition: Hashable) -> int | None:
        """Return the current generation; None if the partition isn't ours."""
        with self._lock:
            assigned = self._partitions.get(partition)
            return None if assigned is None else assigned.generation

    def begin(self, partition: Hashable, offset: int) -> bool:
        """Take what was read at ``offset`` in flight; False if it is to be skipped.

        That is: it is done or in flight already, or the partition isn't ours.
        """
        with self._lock:
            assigned = self._partitions.get(partition)
            return assigned is not None and assigned.begin(offset)

    def done(self, partition: Hashable, offset: int, generation: int) -> bool:
        """Note that ``offset`` is done; False if that came too late: it is somebody else's by now, or was released.

        Saying it twice is harmless.
        """
        with self._lock:
            assigned = self._partitions.get(partition)
            return assigned is not None and assigned.generation == generation and assigned.done(offset)

    def undone(self, partition: Hashable, offset: int, generation: int) -> bool:
        """Note that ``offset`` is not in flight any more and still to be done; False if that came too late.

        It holds the commit back until it was begun again, by who read it, and done.
        """
        with self._lock:
            assigned = self._partitions.get(partition)
            return assigned is not None and assigned.generation == generation and assigned.undone(offset)

    def commits(self) -> dict[Hashable, tuple[int, str]]:
        """Return, for each partition that changed since the last call, the next offset to read and the metadata.

        Who can't write it keeps it for later; what a later call returns for the same partition replaces it.
        """
        with self._lock:
            changed = {partition: assigned.commit() for partition, assigned in self._partitions.items()}
        return {partition: commit for partition, commit in changed.items() if commit is not None}

    def in_flight(self, partition: Hashable) -> int:
        """Return how many offsets were begun and are neither done nor undone."""
        with self._lock:
            assigned = self._partitions.get(partition)
            return 0 if assigned is None else sum(assigned.pending.values())

    def gap(self, partition: Hashable) -> int:
        """Return how far the last offset begun is ahead of the first one still to be done: bound it by pausing."""
        with self._lock:
            assigned = self._partitions.get(partition)
            return 0 if assigned is None else max(0, assigned.position - 1 - assigned.first)


class _Assigned:
    """What is known of a partition since it was assigned.

    What lies below ``position`` is in ``pending`` (offset -> whether in flight, ascending) or done; from there on
    nothing was read yet, and only what is in ``ahead`` is done.
    """

    def __init__(self, generation: int, base: int, metadata: str, log: str) -> None:
        self.generation = generation
        self.pending: dict[int, bool] = {}
        self.position, ahead = read_commit(base, metadata, log)
        self._ahead = [*ahead]
        self._log = log
        self._committed = (base, metadata)
        self._changed = False

    @property
    def first(self) -> int:
        """The first offset still to be done."""
        return next(iter(self.pending), self.position)

    def begin(self, offset: int) -> bool:
        if offset >= self.position:
            self._changed = True
            self._advance(offset)
            if self.position > offset:  # the last owner did it
                return False
            self._advance(offset + 1)
        elif self.pending.get(offset, True):
            return False
        self.pending[offset] = True
        return True

    def _advance(self, position: int) -> None:
        self.position = position
        while self._ahead and self._ahead[0][0] <= self.position:
            self.position = max(self.position, self._ahead.pop(0)[1])

    def done(self, offset: int) -> bool:
        if offset not in self.pending:
            return offset < self.position
        if not self.pending[offset]:
            return False
        del self.pending[offset]
        self._changed = True
        return True

    def undone(self, offset: int) -> bool:
        if offset not in self.pending:
            return False
        self.pending[offset] = False
        return True

    def commit(self) -> tuple[int, str] | None:
        if not self._changed:
            return None
        self._changed = False
        commit = (self.first, _encode(self.first, self._done_ranges(), self._log))
        if commit == self._committed:
            return None
        self._committed = commit
        return commit

    def _done_ranges(self) -> Iterator[tuple[int, int]]:
        start = self.first
        for offset in self.pending:
            if offset > start:
                yield start, offset
            start = offset + 1
        if self.position > start:
            yield start, self.position
        yield from self._ahead


def _encode(first: int, ranges: Iterable[tuple[int, int]], log: str) -> str:
    """Return as many of the ranges as there is room for, the first ones; what is left out is done again."""
    text, end = f"{_MARK} {first:x} ", first
    room = LARGEST_METADATA - len(log)
    for start, after in ranges:
        pair = f"{start - end:x}.{after - start:x},"
        if len(text) + len(pair) > room:
            break
        text += pair
        end = after
    if not log:
        return text[:-1] if end > first else ""
    return f"{text.removesuffix(',')} {log}"


def _decode(base: int, pairs: str) -> Ranges:
    ranges: list[tuple[int, int]] = []
    end = base
    try:
        for pair in pairs.split(",") if pairs else ():
            left_out, done = (int(number, 16) for number in pair.split("."))
            if left_out <= 0 or done <= 0:
                return ()
            ranges.append((end + left_out, end + left_out + done))
            end += left_out + done
    except ValueError:
        return ()
    return ranges
