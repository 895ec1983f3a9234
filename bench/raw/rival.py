"""What is compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Final

BATCH: Final = 100
PATIENCE: Final = 10.0
"""Seconds until a server that owes an answer is given up."""
QUEUE: Final = "raw"
BODY: Final = (
    b'json\n{"v":1,"id":"0123456789abcdef0123456789abcdef","task":"noop","at":1790000000000000,"args":[12345]}'
)


class Raw(ABC):
    """One client. All raise where the server doesn't do what is asked of it."""

    @abstractmethod
    def publish(self, count: int) -> None:
        """Publish so many at once, and return when all are confirmed."""

    @abstractmethod
    def drain(self, count: int) -> None:
        """Take and acknowledge so many, batch by batch."""

    @abstractmethod
    def close(self) -> None:
        """Hang up."""

    def publish_batches(self, count: int) -> None:
        """Publish, each batch confirmed before the next."""
        for _ in range(count // BATCH):
            self.publish(BATCH)

    def publish_singles(self, count: int) -> None:
        """Publish, each message confirmed before the next."""
        for _ in range(count):
            self.publish(1)

    def quicker_publishing(self) -> Mapping[str, Callable[[int], None]]:
        """Return ways to publish batches that do less for each message, by their names."""
        return {}

    def quicker_draining(self) -> Mapping[str, Callable[[int], None]]:
        """Return ways to drain in fewer calls, by their names."""
        return {}
