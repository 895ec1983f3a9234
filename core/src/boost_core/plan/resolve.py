"""Turns a declaration into a plan: all names looked up, all options typed, what the broker can't do refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from boost_core.contracts.capability import Capability
from boost_core.contracts.codec import Codec
from boost_core.contracts.control import Control
from boost_core.contracts.specs import BrokerSpec, ControlSpec, PoolSpec, World
from boost_core.errors import BadOption, ControlMismatch, UnsupportedCapability
from boost_core.options import convert_option
from boost_core.plan.compile import Layer, TaskPlan
from boost_core.plan.stages import check_references
from boost_core.plan.task_options import CoreOptions
from boost_core.registry.registry import Registry, unknown_option
from boost_core.settings import Settings, url_option

_CORE: Final = "boost-core"

HEADROOM: Final = 16
"""A sixteenth of a broker's largest body is kept free for what a dead letter adds."""


@attrs.frozen(kw_only=True)
class Declared:
    """A task as the decorator recorded it: nothing is looked up yet."""

    name: str
    queue: str
    function: Callable[..., Any]
    origin: str | None
    place: str
    options: Mapping[str, Any]

    @property
    def is_async(self) -> bool:
        """True for coroutine functions."""
        return inspect.iscoroutinefunction(self.function)


class Resolver:
    """Resolves the tasks of one app."""

    def __init__(
        self,
        registry: Registry,
        settings: Settings,
        codec: Callable[[str], Codec],
        control: Callable[[ControlSpec], Control],
    ) -> None:
        self._registry, self._settings = registry, settings
        self._codec, self._control = codec, control
        self._stores: set[Any] = set()

    def resolve(self, declared: Declared, overrides: Mapping[str, Any]) -> TaskPlan:
        """Return the plan of a task. ``overrides`` are the command line's, over the decorator's options.

        Raises ``BadOption``, ``UnsupportedCapability``, ``ControlMismatch`` or what a plugin's look-up raises.
        """
        self._registry.task_declared(declared)
        specs = self._registry.controls()
        check_references(specs, [spec.name for spec in specs])
        owners = _owners(specs)
        values, origins = self._values(declared, overrides, owners)
        broker, broker_options = self._broker(values)
        pool = self._pool(declared, values, origins)
        codec_name = values["codec"] or self._settings.get("codec")
        codec = self._codec(codec_name)
        plan = TaskPlan(
            name=declared.name,
            queue=f"{self._settings.prefix}{declared.queue}",
            function=declared.function,
            is_async=declared.is_async,
            origin=declared.origin,
            place=declared.place,
            values=values,
            origins=origins,
            broker=broker,
            broker_options=broker_options,
            pool=pool,
            pool_options=self._settings.plugin_options(pool),
            concurrency=_concurrency(declared, values, pool),
            codec_name=codec_name,
            codec=codec,
            binder=codec.bind(declared.name, declared.function),
            prefix=f"{codec_name}\n".encode(),
            largest=broker.limits.max_body - broker.limits.max_body // HEADROOM,
            deduplicates=Capability.DEDUP in broker.capabilities,
            layers=self._layers(declared, specs),
            own_fields={name: field for name, (field, _) in owners.items() if field.metadata.get("message")},
        )
        self._add_stampers(plan)
        self.check_needs(plan, {})
        return plan

    def check_needs(self, plan: TaskPlan, own: Mapping[str, Any]) -> None:
        """Raise ``UnsupportedCapability`` or ``StoreNotFound`` where a task's values, or a message's, ask too much."""
        values = {**plan.values, **own} if own else plan.values
        self._check_capabilities(plan, values)
        if plan.needs_store(values):
            self._check_store(store_of(self._settings, plan.broker))

    def _check_store(self, chosen: Any) -> None:
        if chosen not in self._stores:
            spec, url = self._registry.find("store", chosen)
            self._settings.plugin_options(spec, url_option(spec, url))
            self._stores.add(chosen)

    def _check_capabilities(self, plan: TaskPlan, values: Mapping[str, Any]) -> None:
        wanted: dict[Capability, str] = {}
        if values["priority"]:
            wanted[Capability.PRIORITY] = f"priority={values['priority']}"
        if values["delay"]:
            wanted[Capability.DELAY] = f"delay={values['delay']:g}"
        for layer in plan.layers:
            wanted.update(layer.control.needs(values))
        for capability, asks in wanted.items():
            if capability not in plan.broker.capabilities:
                raise self._unsupported(plan, capability, asks)
        longest = plan.broker.limits.max_delay
        if longest is not None and values["delay"] > longest:
            raise BadOption(
                f"task {plan.name!r}: delay={values['delay']:g} is too long for broker {plan.broker.name!r}.",
                f"Its longest delay is {longest:g} s.",
            )
        if values["priority"] >= plan.broker.limits.priorities and values["priority"]:
            raise BadOption(
                f"task {plan.name!r}: priority={values['priority']} is too high for broker {plan.broker.name!r}.",
                f"Its priorities are 0 to {plan.broker.limits.priorities - 1}.",
            )

    def message_values(self, plan: TaskPlan, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return options given for one message, converted; each must be one that a message may set."""
        owners = _owners([layer.spec for layer in plan.layers])
        fields = {name: field for name, (field, _) in owners.items()}
        allowed = sorted(name for name, field in fields.items() if field.metadata.get("message"))
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in fields:
                raise unknown_option(name, [*allowed, "job_id"])
            if name not in allowed:
                raise BadOption(
                    f"option {name!r} belongs to the whole task {plan.name!r}; a single message can't set it.",
                    f"A message may set: {', '.join([*allowed, 'job_id'])}",
                )
            values[name] = convert_option(f"task {plan.name!r}", fields[name], value)
        self.check_needs(plan, values)
        return values

    # --- parts -------------------------------------------------------------------------------------

    def _unsupported(self, plan: TaskPlan, capability: Capability, asks: str) -> UnsupportedCapability:
        providers = self._registry.with_capability(capability)
        return UnsupportedCapability(f"task {plan.name!r}", asks, plan.broker.name, capability.value, providers)

    def _values(
        self, declared: Declared, overrides: Mapping[str, Any], owners: Mapping[str, tuple[Any, str]]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Lay defaults < project < environment < app < decorator < command line over each other, typed."""
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for name, (field, _) in owners.items():
            default = field.default
            values[name] = default.factory() if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]
            origins[name] = "default"
        for given, origin in self._given(declared, overrides):
            for name, value in given.items():
                if name not in owners:
                    raise unknown_option(name, list(owners))
                values[name] = convert_option(f"task {declared.name!r}", owners[name][0], value)
                origins[name] = origin or self._settings.origin(name)
        return values, origins

    def _given(self, declared: Declared, overrides: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str | None]]:
        return [
            (self._settings.task_defaults, None),
            (declared.options, f"@boost at {declared.place}"),
            (overrides, "command line"),
        ]

    def _broker(self, values: Mapping[str, Any]) -> tuple[BrokerSpec, Any]:
        chosen = values["broker"] or self._settings.get("broker")
        spec, url = self._registry.find("broker", chosen)
        given = {**url_option(spec, url), **values["broker_options"]}
        options = self._settings.plugin_options(spec, given)
        return self._registry.effective(spec, options), options

    def _pool(self, declared: Declared, values: Mapping[str, Any], origins: Mapping[str, str]) -> PoolSpec:
        chosen = values["pool"]
        if chosen is None and self._settings.origin("pool") == "default":
            chosen = "asyncio" if declared.is_async else "threads"
        pool: PoolSpec = self._registry.pool(chosen or self._settings.get("pool"))
        loop = pool.world is World.LOOP
        if declared.is_async and not loop:
            raise BadOption(
                f"task {declared.name!r} is a coroutine function; pool {pool.name!r} runs plain functions.",
                'Use pool="asyncio", or declare the function without async.',
            )
        if loop and not declared.is_async and values["sync"] != "thread":
            raise BadOption(
                f"task {declared.name!r} is a plain function; on pool {pool.name!r} it would block the event loop.",
                'Say sync="thread" to run it in the pool\'s side threads, or use pool="threads".',
            )
        return pool

    def _layers(self, declared: Declared, specs: Sequence[ControlSpec]) -> list[Layer]:
        listed = ControlList([spec.name for spec in specs])
        self._registry.plan(declared, listed)
        by_name = {spec.name: spec for spec in specs}
        return [
            Layer(
                spec=by_name[name],
                control=self._control(by_name[name]),
                distribution=self._registry.provider(by_name[name]).distribution,
            )
            for name in listed.controls
            if name in by_name
        ]

    def _add_stampers(self, plan: TaskPlan) -> None:
        controls = [layer.control for layer in plan.layers]
        plan.stampers = tuple(control.stamp for control in controls if type(control).stamp is not Control.stamp)


def store_of(settings: Settings, broker: BrokerSpec) -> Any:
    """Return what names the store that goes with a broker: the app's setting, else what the broker's spec says."""
    return settings.get("store") or broker.store


@attrs.define
class ControlList:
    """What ``boost_plan`` hooks change: the names of the controls that serve a task."""

    controls: list[str]


def _owners(specs: Sequence[ControlSpec]) -> dict[str, tuple[Any, str]]:
    """Return each task option's field and the name of who owns it."""
    owners: dict[str, tuple[Any, str]] = {}
    for owner, options in ((_CORE, CoreOptions), *((spec.name, spec.options) for spec in specs)):
        attrs.resolve_types(options)
        for field in attrs.fields(options):
            if field.name in owners:
                problem = (
                    f"controls {owners[field.name][1]!r} and {owner!r} both declare the task option {field.name!r}."
                )
                raise ControlMismatch(problem, "Uninstall one of them.")
            owners[field.name] = (field, owner)
    return owners


def _concurrency(declared: Declared, values: Mapping[str, Any], pool: PoolSpec) -> int:
    wanted = values["concurrency"] or pool.concurrency
    if pool.maximum is not None and wanted > pool.maximum:
        if values["concurrency"] is None:
            return pool.maximum
        raise BadOption(
            f"task {declared.name!r}: concurrency={wanted} is more than pool {pool.name!r} runs at once.",
            f"Its most is {pool.maximum}.",
        )
    return int(wanted)
