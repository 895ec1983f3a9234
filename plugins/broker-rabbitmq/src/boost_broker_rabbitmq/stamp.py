"""What the plugin itself writes on messages, and reads from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import attrs
from amqp.serialization import decode_properties_basic
from boost_core.plugin import Frame

PERSISTENT: Final = 2
DUE, EXPIRES, DEATHS = "boost-due", "boost-expires", "boost-deaths"
COUNTED: Final = "x-delivery-count"
_PROPERTIES_AT: Final = 12  # in a content header, after class, weight and size
_LONGEST_ID: Final = 255
_MS: Final = 1000


@attrs.define(eq=False)
class Stamp:
    """Times are seconds since the epoch. ``deaths`` are those known when it was published, ``returns`` since then.

    ``returns`` is the server's own count, which quorum queues have: how often a connection ended that held the
    message, and on servers before 4.3 how often it was given back as well.
    """

    id: str = ""
    priority: int = 0
    due: float | None = None
    expires: float | None = None
    deaths: int = 0
    returns: int = 0

    @classmethod
    def of(cls, frame: Frame, now: float) -> Stamp:
        """Return the stamp of a frame that is published now."""
        return cls(
            id=frame.id,
            priority=frame.priority,
            due=now + frame.delay if frame.delay > 0 else None,
            expires=None if frame.ttl is None else now + frame.ttl,
        )

    @classmethod
    def read(cls, header: bytes) -> Stamp:
        """Return what stands in a content header; whatever a foreign message has there counts for nothing."""
        try:
            properties, _ = decode_properties_basic(header, _PROPERTIES_AT)
        except Exception:
            return cls()
        headers: Mapping[Any, Any] = properties.get("application_headers") or {}
        if len(headers) == 1 and headers.get(COUNTED) == 0:  # the plain case, of quorum queues
            return cls(properties.get("message_id", ""), properties.get("priority", 0))
        return cls(
            id=properties.get("message_id", ""),
            priority=properties.get("priority", 0),
            due=_time(headers.get(DUE)),
            expires=_time(headers.get(EXPIRES)),
            deaths=_count(headers.get(DEATHS)),
            returns=_count(headers.get(COUNTED)),
        )

    def is_early(self, now: float) -> bool:
        """Return whether the message's time hasn't come yet, and won't be over before."""
        return self.due is not None and self.due > now and (self.expires is None or self.expires > now)

    def again(self) -> Stamp:
        """Return the stamp of the same message published again: what is known of its deaths goes with it."""
        return attrs.evolve(self, deaths=self.deaths + self.returns, returns=0)

    def properties(self, now: float, *, waits: bool = False) -> dict[str, Any]:
        """Return the message's properties; ``waits``: for a queue of the delay ladder, where it must not expire."""
        found: dict[str, Any] = {"delivery_mode": PERSISTENT}
        if self.id and len(self.id.encode()) <= _LONGEST_ID:
            found["message_id"] = self.id
        if self.priority:
            found["priority"] = self.priority
        if self.due is None and self.expires is None and not self.deaths:
            return found
        headers: dict[str, int] = {}
        if self.due is not None:
            headers[DUE] = math.ceil(self.due * _MS)
        if self.expires is not None:
            headers[EXPIRES] = int(self.expires * _MS)
            if not waits:
                found["expiration"] = str(max(0, int((self.expires - now) * _MS)))
        if self.deaths:
            headers[DEATHS] = self.deaths
        found["application_headers"] = headers
        return found


def _time(value: Any) -> float | None:
    return value / _MS if type(value) is int else None


def _count(value: Any) -> int:
    return value if type(value) is int and value > 0 else 0
