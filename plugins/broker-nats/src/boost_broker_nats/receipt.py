"""What a delivery needs to be settled."""

from __future__ import annotations

from typing import Final

import attrs

ACK: Final = b"+ACK"
RELEASE: Final = b"-NAK"
EXTEND: Final = b"+WPI"
"""What the server hears at a receipt's subject: done, given back, still at work."""


@attrs.define(eq=False)
class Receipt:
    """Where the server hears what became of a message, until when (monotonic) it is ours, and its place in line."""

    reply: str
    until: float
    number: int
