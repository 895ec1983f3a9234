"""How many messages the server may send ahead: as many as are asked for, no more."""

from __future__ import annotations

from typing import Final

import attrs

SWIFT_SECONDS: Final = 0.5
"""Jobs that are settled within it, on average, work off what came too much before anybody misses it."""

GENEROUS: Final = 4
SPARE: Final = 16
"""How many more than are asked for may be sent ahead without being given back.

So many more are asked for where messages come before their time: those only pass through. To ask for more than that
would mean giving back ready ones that come after them.
"""

MOST: Final = 65535  # prefetch counts have 16 bits


@attrs.define(eq=False)
class Window:
    """The prefetch of one consumer, which only a new consumer can change; used under its subscription's lock.

    ``open`` says whether anything is wanted at all, ``wanted`` what the last fetch asked for less what it got, and
    ``renewing`` that a new consumer is on its way. ``consumer`` numbers them, 0 is none. ``sent`` counts what the
    present one was sent and isn't settled, ``early`` what came before its time of all that it was sent; ``held`` are
    all that the server counts as ours, of consumers before as well. ``pace`` is how long a message is held, on average.
    """

    credit: int
    open: bool = True
    wanted: int = 0
    renewing: bool = False
    consumer: int = 0
    size: int = 0
    sent: int = 0
    early: int = 0
    held: dict[int, int] = attrs.Factory(dict)
    """Delivery tag -> consumer, in the order of their delivery."""
    pace: float | None = None
    _consumers: int = 0

    @property
    def full(self) -> bool:
        """Return whether the server may send no more: there is no consumer, or it was sent all that it may have."""
        return not self.consumer or self.sent >= self.size

    def lacks(self, waiting: int) -> int:
        """Return how many more are wanted than the server may send, where ``waiting`` are here already.

        Only of a full consumer: what isn't full needs no successor, and what the server sends while its consumer is
        cancelled goes back, counted as a return.
        """
        if self.renewing or not self.full:
            return 0
        return min(self.wanted - waiting, self.credit - len(self.held))

    def must_grow(self, waiting: int) -> bool:
        """Return whether to open a new consumer at once: there is none, or it is far too small.

        Where little is lacking, an acknowledgement may be on its way that makes up for it.
        """
        lacking = self.lacks(waiting)
        return lacking > 0 and (not self.consumer or lacking >= self.size)

    def is_generous(self, waiting: int) -> bool:
        """Return whether far more was sent ahead than is asked for."""
        return waiting > GENEROUS * self.wanted + SPARE

    def renew(self, waiting: int, busy: int) -> tuple[int, int]:
        """Return number and prefetch of the next consumer, after the last one's end; ``busy`` are being worked on.

        Those count for the consumers before. Once they are settled their places would be missing, so they are
        added where jobs are swift; where jobs are slow, that would keep messages from other workers.
        """
        size = self.wanted - waiting + min(2 * self.early, SPARE)
        if self.pace is not None and self.pace < SWIFT_SECONDS:
            size += busy
        self.size = max(1, min(size, self.credit - len(self.held), MOST))
        self.sent = self.early = 0
        self.renewing = False
        self._consumers += 1
        self.consumer = self._consumers
        return self.consumer, self.size

    def close(self) -> int:
        """Return the number of the consumer that is to be cancelled, 0 for none."""
        closed, self.consumer = self.consumer, 0
        return closed

    def take(self, tag: int, consumer: int, *, is_early: bool) -> None:
        """Count a message that arrived."""
        self.held[tag] = consumer
        if consumer == self.consumer:
            self.sent += 1
            self.early += is_early

    def settle(self, tags: set[int]) -> tuple[int, list[int]]:
        """Count messages that are settled; return up to which tag all are, 0 for none, and those above it."""
        upto = 0
        for tag in self.held:
            if tag not in tags:
                break
            upto = tag
        for tag in tags:
            if self.held.pop(tag) == self.consumer:
                self.sent -= 1
        return upto, sorted(tag for tag in tags if tag > upto)

    def measure(self, seconds: float) -> None:
        """Take note of how long a message was held."""
        self.pace = seconds if self.pace is None else self.pace * 0.8 + seconds * 0.2
