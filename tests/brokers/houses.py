"""The brokers that are proven here, the servers they live on, and what the tests do with both."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from boost_core import App
from boost_core.plugin import BrokerSpec, Capability, Delivery, Frame, QueueSpec, new_id

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from launcher import Proxy, Server, available, start  # noqa: E402 - found by the line above
from with_broker import SERVERS, address  # noqa: E402

BROKERS: Final = ("sqlite", "redis", "redis-stream", "rabbitmq", "kafka", "nats")
PATIENCE: Final = 20.0

_numbers = itertools.count()


def missing(broker: str) -> str | None:
    """Return why a broker can't be proven here; None where it can."""
    return available(SERVERS[broker]) if broker in SERVERS else None


def unique(name: str = "q") -> str:
    """Return a queue's name that nobody else uses."""
    return f"{name}-{os.getpid()}-{next(_numbers)}"


class House:
    """Where a broker lives: the URL or name to reach it by."""

    def __init__(self, broker: str, folder: Path) -> None:
        self.broker = broker
        self.folder = folder

    @property
    def address(self) -> str:
        """What names the broker in BOOST_BROKER or on the command line."""
        return self.broker

    def app(self, **given: Any) -> App:
        """Return an app on it, with results in this process."""
        return App("proof", broker=self.address, store="memory", **given)

    @property
    def spec(self) -> BrokerSpec:
        """What the broker can, and how far."""
        return self.app().boost(unique("spec"))(_nothing).plan.broker

    def close(self) -> None:
        """Leave nothing running."""


class ServedHouse(House):
    """Where a broker's server runs, for itself."""

    def __init__(self, broker: str, folder: Path, **variant: Any) -> None:
        super().__init__(broker, folder)
        self.server: Server = start(SERVERS[broker], folder / "server", **variant)

    @property
    def address(self) -> str:
        return address(self.broker, self.server.url)

    def close(self) -> None:
        self.server.kill()


class ProxiedHouse(ServedHouse):
    """Where a broker's server is reached through a proxy."""

    def __init__(self, broker: str, folder: Path) -> None:
        self.proxy = Proxy()
        # Kafka alone tells its clients where to go from the address they were given.
        super().__init__(broker, folder, **({"advertised": self.proxy.port} if broker == "kafka" else {}))
        self.proxy.target = self.server.port

    @property
    def address(self) -> str:
        return super().address.replace(f":{self.server.port}", f":{self.proxy.port}")

    def close(self) -> None:
        self.proxy.close()
        super().close()


def build(broker: str, folder: Path) -> House:
    """Return a house for any broker."""
    return ServedHouse(broker, folder) if broker in SERVERS else House(broker, folder)


class Stage:
    """One opened broker, its queues, and its subscriptions, all closed at the end."""

    def __init__(self, house: House) -> None:
        self.house = house
        self._app = house.app()
        task = self._app.boost(unique("stage"))(_nothing)
        self.spec = task.plan.broker
        self.broker = self._app.services.broker(task.plan.broker, task.plan.broker_options)
        self.lost: list[Delivery] = []
        self._subscriptions: list[Any] = []

    def can(self, *capabilities: Capability) -> bool:
        """Return whether the broker has all of these."""
        return set(capabilities) <= self.spec.capabilities

    def queue(self, name: str | None = None) -> str:
        """Return a declared queue."""
        name = name or unique()
        levels = self.spec.limits.priorities if self.can(Capability.PRIORITY) else 1
        self.broker.declare([QueueSpec(name=name, priorities=levels), QueueSpec(name=f"{name}.dead")])
        return name

    def subscribe(self, *queues: str, credit: int = 4096) -> Any:
        """Return a subscription."""
        specs = [QueueSpec(name=name) for name in queues]
        subscription = self.broker.subscribe(specs, dict.fromkeys(queues, credit), self.lost.extend)
        self._subscriptions.append(subscription)
        return subscription

    def publish(self, queue: str, *bodies: bytes, **facts: Any) -> list[Frame]:
        """Publish a batch; ``facts`` are of all its frames."""
        frames = [Frame(new_id(), queue, body, **facts) for body in bodies]
        for frame in frames:
            frame.dedup_id = frame.dedup_id or f"{frame.id}:1:0"
        self.broker.publish(frames, PATIENCE)
        return frames

    def close(self) -> None:
        """Close all."""
        for subscription in self._subscriptions:
            subscription.close()
        self._app.close()


def _nothing() -> None: ...


def fetch(subscription: Any, want: Mapping[str, int], seconds: float = PATIENCE) -> list[Delivery]:
    """Return what is wanted, gathered over as many fetches as it takes, at most so long."""
    import time

    left, end = dict(want), time.monotonic() + seconds
    found: list[Delivery] = []
    while left and time.monotonic() < end:
        for delivery in subscription.fetch(left, min(1.0, max(0.0, end - time.monotonic()))):
            found.append(delivery)
            left[delivery.queue] -= 1
            if not left[delivery.queue]:
                del left[delivery.queue]
    return found


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    """Return the bodies of deliveries."""
    return [bytes(delivery.body) for delivery in deliveries]
