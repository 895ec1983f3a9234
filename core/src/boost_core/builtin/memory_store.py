"""Store ``memory``: keyed state in this process, for tests and programs that are one process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from boost_core.contracts.store import Store
from boost_core.errors import Closed
from boost_core.native import Condition

_LOOKED_AT: Final = 2
"""How many of the items not looked at for longest are checked for expiry, for each item written."""


class MemoryStore(Store):
    """Keeps items in a dict until they expire by ``clock.monotonic``.

    Each write also checks a few old items, so that what nobody asks for again goes away without a
    thread, and no call ever pays for all of them.
    """

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._items: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self._changed = Condition()
        self._awaited: list[set[str]] = []
        self._woken = False
        self._open = False

    def open(self) -> None:
        self._open = True

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def after_fork(self) -> None:
        """Nothing to let go of: the child's store starts empty."""

    def get(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        with self._changed:
            self._check_open()
            return self._found(keys)

    def put(self, items: Mapping[str, bytes], ttl: float) -> None:
        with self._changed:
            self._check_open()
            now = self.clock.monotonic()
            for key, value in items.items():
                self._items[key] = (now + ttl, value)
            self._drop_some(_LOOKED_AT * len(items), now)
            if any(not keys.isdisjoint(items) for keys in self._awaited):
                self._changed.notify_all()

    def delete(self, keys: Sequence[str]) -> int:
        with self._changed:
            self._check_open()
            found = self._found(keys)
            for key in found:
                del self._items[key]
            return len(found)

    def wait(self, keys: Sequence[str], timeout: float) -> Mapping[str, bytes]:
        give_up = time.monotonic() + timeout
        awaited = set(keys)
        with self._changed:
            self._check_open()
            self._awaited.append(awaited)
            try:
                return self._wait(keys, give_up)
            finally:
                self._awaited.remove(awaited)
                self._woken = False  # a wake of before is answered by any return

    def _wait(self, keys: Sequence[str], give_up: float) -> Mapping[str, bytes]:
        found = self._found(keys)
        while not found and not self._woken and self._open:
            left = give_up - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(left)
            found = self._found(keys)
        return found

    def wake(self) -> None:
        with self._changed:
            self._woken = True  # kept for a wait that is about to block
            self._changed.notify_all()

    def _found(self, keys: Sequence[str]) -> dict[str, bytes]:
        now, items = self.clock.monotonic(), self._items
        return {key: items[key][1] for key in keys if key in items and items[key][0] > now}

    def _drop_some(self, count: int, now: float) -> None:
        items = self._items
        for _ in range(min(count, len(items))):
            key = next(iter(items))
            if items[key][0] <= now:
                del items[key]
            else:
                items.move_to_end(key)

    def _check_open(self) -> None:
        if not self._open:
            what = f"store {self.spec.name!r}"
            raise Closed(what)
