"""Errors of brokers and stores at work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import attrs

from boost_core.errors.base import BoostError


@attrs.define(eq=False)
class BrokerUnavailable(BoostError):
    """The broker can't be reached or can't keep what was asked; says what was tried and the remedy."""

    code: ClassVar[str] = "broker-unavailable"

    broker: str
    problem: str
    fix: str | None = None

    def __str__(self) -> str:
        text = f"broker {self.broker!r}: {self.problem}"
        return f"{text}\n  {self.fix}" if self.fix else text


class ConnectionLost(BrokerUnavailable):
    """A working connection broke; core reconnects."""

    code: ClassVar[str] = "connection-lost"


@attrs.define(eq=False)
class QueueGone(BoostError):
    """A queue that was being consumed no longer exists; only that queue stops."""

    code: ClassVar[str] = "queue-gone"

    broker: str
    queue: str

    def __str__(self) -> str:
        return f"broker {self.broker!r}: queue {self.queue!r} no longer exists."


@attrs.define(eq=False)
class PublishError(BoostError):
    """A batch was not stored whole: indexes of the frames that surely failed, and of the unsure ones."""

    code: ClassVar[str] = "publish"

    broker: str
    problem: str
    failed: Sequence[int] = ()
    unsure: Sequence[int] = ()

    def __str__(self) -> str:
        return (
            f"broker {self.broker!r}: {self.problem} "
            f"({len(self.failed)} not stored, {len(self.unsure)} unsure; every other message of the batch is stored)"
        )


@attrs.define(eq=False)
class SettleError(BoostError):
    """Some deliveries of a batch could not be settled; the rest were."""

    code: ClassVar[str] = "settle"

    broker: str
    problem: str
    failed: Sequence[object] = ()

    def __str__(self) -> str:
        return f"broker {self.broker!r}: {len(self.failed)} deliveries could not be settled: {self.problem}"


@attrs.define(eq=False)
class StoreUnavailable(BoostError):
    """The store can't be reached or written."""

    code: ClassVar[str] = "store-unavailable"

    store: str
    problem: str
    fix: str | None = None

    def __str__(self) -> str:
        text = f"store {self.store!r}: {self.problem}"
        return f"{text}\n  {self.fix}" if self.fix else text


@attrs.define(eq=False)
class Closed(BoostError):
    """Something was used after it was closed."""

    code: ClassVar[str] = "closed"

    what: str

    def __str__(self) -> str:
        return f"{self.what} is closed."
