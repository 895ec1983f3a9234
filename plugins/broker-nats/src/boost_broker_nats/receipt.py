"""What a delivery needs to be settled."""

from __future__ import annotations

from typing import Final

import attrs

ACK: Final = b"+ACK"
RELEASE: Final = b"-NAK"
EXTEND: Final = b"+WPI"
"""What the server hears at a receipt's subject: done, given back, still at work."""

_NANOSECONDS: Final = 1_000_000_000
_SHORT: Final = 9  # fields of a receipt's subject, of servers and accounts without a JetStream domain


@attrs.define(eq=False)
class Receipt:
    """Where the server hears what became of a message, until when (monotonic) it is ours, and its place in line.

    ``sequence`` is its number in its stream and ``stored`` when it came there (epoch seconds, the server's clock),
    ``handed_over`` how often it was given to a worker so far, ``released`` how often it was given back, as far as that
    is known.
    """

    reply: str
    until: float
    number: int
    stream: str
    sequence: str
    handed_over: int
    stored: float
    released: int = 0

    @classmethod
    def read(cls, reply: str, until: float, number: int) -> Receipt:
        """Read what the server writes into the subject: $JS.ACK[.domain.account].stream.consumer.times.sequence..."""
        fields = reply.split(".")
        stream, _, times, sequence, _, stored = fields[2:8] if len(fields) == _SHORT else fields[4:10]
        return cls(reply, until, number, stream, sequence, int(times), int(stored) / _NANOSECONDS)
