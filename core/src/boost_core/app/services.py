"""The opened brokers, stores, codecs and controls of an app, one of each a process."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from boost_core.bridge.deadlines import DeadlineWatch
from boost_core.contracts.broker import SyncBroker
from boost_core.contracts.codec import Codec
from boost_core.contracts.control import Control, ControlContext
from boost_core.contracts.specs import BrokerSpec, ControlSpec, Flavour
from boost_core.contracts.store import Store
from boost_core.forks import on_fork
from boost_core.plan.resolve import store_of
from boost_core.registry.registry import Registry
from boost_core.settings import Settings, url_option
from boost_core.types import Clock, QueueKind, QueueSpec

if TYPE_CHECKING:
    from boost_core.plan.compile import TaskPlan

Beside: TypeAlias = tuple[tuple[str, Any], ...]


class Services:
    """Makes and keeps what an app's tasks share. Thread-safe; a forked child starts anew."""

    def __init__(self, registry: Registry, settings: Settings, clock: Clock) -> None:
        self.registry, self.settings, self.clock = registry, settings, clock
        self._codecs: dict[str, Codec] = {}
        self._controls: dict[str, Control] = {}
        self.generation = 0
        self._reset()
        on_fork(self)

    def _reset(self) -> None:
        self.generation += 1  # objects of an earlier one are another process's, or closed
        self._lock = threading.RLock()
        self._brokers: dict[Any, SyncBroker] = {}
        self._declared: set[tuple[Any, str]] = set()
        self._stores: dict[Any, Store] = {}
        self.deadlines = DeadlineWatch(self.clock)

    # --- brokers -----------------------------------------------------------------------------------

    def broker(self, spec: BrokerSpec, options: Any) -> SyncBroker:
        """Return the opened broker of these options. Raises ``BrokerUnavailable``."""
        key = (spec, options)
        broker = self._brokers.get(key)
        if broker is None:
            with self._lock:
                broker = self._brokers.get(key)
                if broker is None:
                    broker = self._brokers[key] = self._open_broker(spec, options)
        return broker

    def _open_broker(self, spec: BrokerSpec, options: Any) -> SyncBroker:
        made: Any = self.registry.load(spec)(options)
        made.spec, made.clock = spec, self.clock
        broker: SyncBroker = made if spec.flavour is Flavour.SYNC else _behind_portal(made)
        broker.open()
        return broker

    def declare(self, broker: SyncBroker, queues: Iterable[QueueSpec]) -> None:
        """Make queues exist, once a process."""
        with self._lock:
            new = [queue for queue in queues if (id(broker), queue.name) not in self._declared]
            if new:
                broker.declare(new)
                self._declared.update((id(broker), queue.name) for queue in new)

    # --- stores ------------------------------------------------------------------------------------

    def store(self, task: TaskPlan | None = None) -> Store:
        """Return the opened store of a task, else the app's. Raises ``StoreUnavailable`` or ``StoreNotFound``."""
        choice = self.store_choice(task)
        store = self._stores.get(choice)
        if store is None:
            with self._lock:
                store = self._stores.get(choice)
                if store is None:
                    store = self._stores[choice] = self._open_store(*choice)
        return store

    def store_choice(self, task: TaskPlan | None = None) -> tuple[Any, Beside]:
        """Return what names that store, and the options that it has unless it is told others.

        The name is the setting, else what the broker's spec says: the task's broker, else the app's. A store that goes
        with the broker is on the same server, and as durable: the ack of a job doesn't outlive its result.
        """
        broker, options = (task.broker, task.broker_options) if task else self._default_broker()
        chosen = store_of(self.settings, broker)
        return chosen, _beside(options) if chosen == broker.store else ()

    def _default_broker(self) -> tuple[BrokerSpec, Any]:
        spec, url = self.registry.find("broker", self.settings.get("broker"))
        return spec, self.settings.plugin_options(spec, url_option(spec, url))

    def _open_store(self, chosen: Any, beside: Beside) -> Store:
        spec, url = self.registry.find("store", chosen)
        options = self.settings.plugin_options(spec, url_option(spec, url), beneath=dict(beside))
        store: Store = self.registry.load(spec)(options)
        store.spec, store.clock = spec, self.clock
        store.open()
        return store

    # --- codecs and controls -----------------------------------------------------------------------

    def codec(self, name: str) -> Codec:
        """Return the codec of a name. Raises ``CodecNotFound``."""
        codec = self._codecs.get(name)
        if codec is None:
            spec = self.registry.codec(name)
            codec = self._codecs[name] = self.registry.load(spec)(self.settings.plugin_options(spec))
        return codec

    def control(self, spec: ControlSpec) -> Control:
        """Return the one object of a control."""
        control = self._controls.get(spec.name)
        if control is None:
            context = ControlContext(
                clock=self.clock,
                namespace=self.settings.get("namespace"),
                store=self.store,
                deadlines=_Deadlines(self),
            )
            control = self._controls[spec.name] = self.registry.load(spec)(context)
        return control

    # --- the end, and forks ------------------------------------------------------------------------

    def close(self) -> None:
        """Close all brokers and stores."""
        with self._lock:
            opened: list[Any] = [*self._brokers.values(), *self._stores.values()]
            self._brokers, self._stores = {}, {}
            self._declared.clear()
            self.generation += 1
        for one in opened:
            one.close()

    def after_fork(self) -> None:
        """In a forked child: let plugins drop raw descriptors, forget their objects without running destructors."""
        for broker in self._brokers.values():
            broker.after_fork()
        for store in self._stores.values():
            store.after_fork()
        _FORGOTTEN.append((self._brokers, self._stores, self.deadlines))
        self._reset()


@attrs.frozen
class _Deadlines:
    """The deadlines of whichever process this is: a forked child has a watch of its own."""

    services: Services

    def watch(self, run: Any, seconds: float) -> None:
        self.services.deadlines.watch(run, seconds)

    def forget(self, run: Any) -> None:
        self.services.deadlines.forget(run)


_FORGOTTEN: Final[list[Any]] = []


def _beside(options: Any) -> Beside:
    """Return what a store takes over from the broker that it goes with, where it has such options."""
    values = {name: getattr(options, name, None) for name in ("url", "durability")}
    return tuple((name, value) for name, value in values.items() if value is not None)


def _behind_portal(broker: Any) -> SyncBroker:
    from boost_core.bridge.portal import PortalBroker  # brings asyncio

    return PortalBroker(broker)


def queue_specs(name: str, **facts: Any) -> list[QueueSpec]:
    """Return a work queue and its companion for dead letters, as brokers are told of them."""
    return [QueueSpec(name=name, **facts), QueueSpec(name=f"{name}.dead", kind=QueueKind.DEAD)]
