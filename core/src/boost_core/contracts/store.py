"""The contract of stores: keyed state with a time to live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from boost_core.contracts.specs import StoreSpec
from boost_core.types import Clock, SystemClock


class Store:
    """Keyed bytes that expire. ``spec`` and ``clock`` are set by core before ``open``.

    Called from broker threads and from one waiter thread a process, several at once; never from a
    user's event loop. Raises ``StoreUnavailable`` within the option ``timeout``. Keys are text of at most
    512 characters; values are bytes.
    """

    spec: StoreSpec
    clock: Clock = SystemClock()

    def __init__(self, options: Any) -> None:
        self.options = options

    def open(self) -> None:
        """Connect and check; idempotent."""
        raise NotImplementedError

    def close(self) -> None:
        """Disconnect; idempotent. A blocked ``wait`` returns within 1 s."""
        raise NotImplementedError

    def after_fork(self) -> None:
        """In a forked child: let go of raw descriptors only; core builds a new store."""
        raise NotImplementedError

    def get(self, keys: Sequence[str]) -> Mapping[str, bytes]:
        """Return the values of the keys that exist and haven't expired."""
        raise NotImplementedError

    def put(self, items: Mapping[str, bytes], ttl: float) -> None:
        """Write all items, each to live ``ttl`` seconds, replacing older values. All or none."""
        raise NotImplementedError

    def delete(self, keys: Sequence[str]) -> int:
        """Remove keys; return how many existed."""
        raise NotImplementedError

    def wait(self, keys: Sequence[str], timeout: float) -> Mapping[str, bytes]:
        """Return as soon as any key exists, with all that do; ``{}`` after ``timeout`` seconds. Waiter thread."""
        raise NotImplementedError

    def wake(self) -> None:
        """Let a blocked ``wait`` return now. Any thread; core calls it when more keys are awaited."""
        raise NotImplementedError
