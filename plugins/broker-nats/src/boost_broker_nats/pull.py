"""What a worker asks of one queue's consumer, and what has come of it."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import nats.errors
from boost_core.plugin import Delivery
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from boost_broker_nats.connection import Connection
from boost_broker_nats.place import CONSUMER, Place
from boost_broker_nats.receipt import Receipt

OVERDUE_SECONDS: Final = 5.0
"""A request is given up so long after its end, should the server's word of that be lost."""

PAUSE_SECONDS: Final = 1.0
"""How long a consumer that has refused isn't asked again."""

_ENDED: Final = "408"  # the request's time is over; other statuses say that something is amiss
_NANOSECONDS: Final = 1_000_000_000


class Pull:
    """One queue's open requests and its box: messages that have come and weren't taken yet.

    A request says how many may come, and stays open at the server until they have, or until it ends: an idle worker
    says nothing else. The server forgets it when nobody hears its inbox any more.
    """

    def __init__(
        self, connection: Connection, queue: str, lease: float, seconds: float, on_arrival: Callable[[], None]
    ) -> None:
        self.queue = queue
        self.refused = False  # the server said that it can't be asked: is the consumer still there?
        self.box: deque[Delivery] = deque()
        self._connection = connection
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{Place.of(queue).stream}.{CONSUMER}"
        self._lease, self._seconds = lease, seconds
        self._heard: Subscription | None = None
        self._inbox = ""
        self._coming = 0
        self._ends = 0.0
        self._not_before = 0.0
        self._on_arrival = on_arrival
        self._arrived = 0

    def take(self, count: int) -> list[Delivery]:
        """Take up to ``count`` messages out of the box."""
        return [self.box.popleft() for _ in range(min(count, len(self.box)))]

    def take_older(self, until: float) -> list[Delivery]:
        """Take those whose lease ends before ``until`` (monotonic), unless it is renewed."""
        found = [one for one in self.box if one.receipt.until < until]
        self.box = deque(one for one in self.box if one.receipt.until >= until)
        return found

    @property
    def coming(self) -> bool:
        """Tell whether there is something in the box, or may yet come for what was asked."""
        return bool(self._coming or self.box)

    def pause(self) -> None:
        """Ask again in a while: the consumer is there, and can't be asked now."""
        self.refused = False
        self._not_before = time.monotonic() + PAUSE_SECONDS

    def due(self) -> float:
        """Return when (monotonic) to ask again at the latest."""
        return max(self._not_before, self._ends + OVERDUE_SECONDS if self._coming else 0.0)

    async def ask(self, count: int) -> None:
        """Have ``count`` messages come; do nothing while half of them are on their way."""
        now = time.monotonic()
        if now >= self._ends + OVERDUE_SECONDS:
            self._coming = 0
        expected = self._coming + len(self.box)
        if expected * 2 > count or now < self._not_before:
            return
        if self._heard is None:
            await self._hear()
        request = {"batch": count - expected, "expires": int(self._seconds * _NANOSECONDS)}
        self._coming += count - expected
        self._ends = now + self._seconds
        await self._connection.client.publish(self._subject, json.dumps(request).encode(), self._inbox)

    async def _hear(self) -> None:
        client = self._connection.client
        self._inbox = client.new_inbox()
        self._heard = await client.subscribe(self._inbox, cb=self._take_in, pending_bytes_limit=0)

    async def _take_in(self, message: Msg) -> None:
        if message.reply:
            self._coming = max(0, self._coming - 1)
            self._arrived += 1
            receipt = Receipt.read(message.reply, time.monotonic() + self._lease, self._arrived)
            self.box.append(Delivery(self.queue, message.data, receipt))
        else:
            self._told(message.headers or {})
        self._on_arrival()

    def _told(self, status: dict[str, str]) -> None:
        left = status.get("Nats-Pending-Messages")
        self._coming = 0 if left is None else max(0, self._coming - int(left))
        self.refused = status.get("Status") != _ENDED

    async def stop(self) -> list[Delivery]:
        """Have no more come; return what has come and wasn't taken, to be given back."""
        heard, self._heard = self._heard, None
        if heard is not None:
            await self._connection.bounded(heard.drain())  # type: ignore[no-untyped-call]
        return self.reset()

    async def drop(self) -> list[Delivery]:
        """Do the same where the requests went with the connection."""
        heard, self._heard = self._heard, None
        if heard is not None:
            with suppress(nats.errors.Error):  # the connection that it belonged to is gone for good
                await heard.unsubscribe()
        return self.reset()

    def reset(self) -> list[Delivery]:
        """Forget all requests; return what is in the box."""
        self._coming, self.refused, self._not_before = 0, False, 0.0
        box, self.box = list(self.box), deque()
        return box
