"""Compiles a declared task: resolves its options and controls, and nests its layers into one callable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final

import attrs

from boost_core.contracts.codec import Binder, Codec
from boost_core.contracts.control import Control, Gate, Policy
from boost_core.contracts.specs import BrokerSpec, ControlSpec, PoolSpec, World
from boost_core.errors import BadOption, ControlMismatch, DecodeError, JobCancelled, JobTimeout
from boost_core.options import convert_option, duration
from boost_core.plan.current import RUNNING
from boost_core.plan.effects import drive, drive_async, guarded, guarded_async
from boost_core.plan.stages import ordered
from boost_core.types import Done, Failed, Outcome, RateLimited, Requeue, Run, RunnerCall, Steer

DONE: Final = Done()
_UNRUN: Final[Mapping[type, str]] = {
    CoroutineType: "a coroutine",
    GeneratorType: "a generator",
    AsyncGeneratorType: "an asynchronous generator",
}


@attrs.define(eq=False, kw_only=True)
class Layer:
    """One control of a task's chain: its spec, the object, and the distribution it comes from."""

    spec: ControlSpec
    control: Control
    distribution: str


@attrs.define(eq=False, kw_only=True)
class TaskPlan:
    """Everything about one task, resolved: what the publisher, the pump and the pool need.

    ``call`` is compiled for messages without options of their own, so that a control that the task doesn't use
    costs nothing; ``call_own`` is for the others: while it is compiled, ``overridden`` is True. ``prefix`` begins each
    body, ``largest`` bounds it, ``own_fields`` are the options that a message may set, ``deduplicates`` tells whether
    the broker reads dedup ids. ``chains`` are the layers that take part, by "gate", "wrap", "wrap_own" and "policy",
    first or outermost to last.
    """

    name: str
    queue: str
    function: Callable[..., Any]
    is_async: bool
    origin: str | None
    place: str
    values: Mapping[str, Any]
    origins: Mapping[str, str]
    broker: BrokerSpec
    broker_options: Any
    pool: PoolSpec
    pool_options: Any
    concurrency: int
    codec_name: str
    codec: Codec
    binder: Binder
    prefix: bytes
    largest: int
    deduplicates: bool
    layers: Sequence[Layer]
    own_fields: Mapping[str, Any] = attrs.field(factory=dict)
    stampers: tuple[Callable[..., None], ...] = ()
    gates: tuple[Gate, ...] = ()
    policies: tuple[Policy, ...] = ()
    committing: tuple[Policy, ...] = ()
    call: RunnerCall | None = None
    call_own: RunnerCall | None = None
    overridden: bool = False
    chains: Mapping[str, Sequence[Layer]] = attrs.field(factory=dict)

    def needs_store(self, values: Mapping[str, Any]) -> bool:
        """Return whether these values, the task's or a message's, need the task's store."""
        return any(layer.control.needs_store(values) for layer in self.layers)

    def read_own(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return a message's own options, typed as they were when it was pushed.

        Raises ``DecodeError`` for what no message of this task can have; names that nobody here knows are left alone.
        """
        return {name: self._own_value(name, value) for name, value in options.items()}

    def _own_value(self, name: str, value: Any) -> Any:
        field = self.own_fields.get(name)
        try:
            if field is not None:
                return convert_option(f"task {self.name!r}", field, value)
        except BadOption as error:
            raise DecodeError(str(error)) from error
        if name in self.values:
            message = f"task {self.name!r}: option {name!r} belongs to the whole task; a message can't set it"
            raise DecodeError(message)
        return value


def add_runner(plan: TaskPlan) -> None:
    """Compile what a worker needs on top: the gates, the policies, and ``plan.call`` for the pool's world."""
    controls = {layer.spec.name: layer for layer in plan.layers}

    def chosen(stage: str) -> list[Layer]:
        specs = [layer.spec for layer in plan.layers]
        return [controls[spec.name] for spec in ordered(specs, lambda spec: getattr(spec, stage))]

    gates = [(layer, gate) for layer in chosen("gate") if (gate := layer.control.gate(plan)) is not None]
    policies = [(layer, policy) for layer in chosen("policy") if (policy := layer.control.policy(plan)) is not None]
    plan.gates = tuple(gate for _, gate in gates)
    plan.policies = tuple(policy for _, policy in policies if type(policy).decide is not Policy.decide)
    plan.committing = tuple(policy for _, policy in policies if type(policy).commit is not Policy.commit)
    plan.call, wraps = _runner(plan, chosen("wrap"))
    plan.overridden = True
    plan.call_own, wraps_own = _runner(plan, chosen("wrap"))
    plan.overridden = False
    plan.chains = {
        "gate": [layer for layer, _ in gates],
        "wrap": wraps,
        "wrap_own": wraps_own,
        "policy": [layer for layer, _ in policies],
    }


def _runner(plan: TaskPlan, layers: Sequence[Layer]) -> tuple[RunnerCall, list[Layer]]:
    """Nest TRACE > TIMEOUT > (context) > CONTEXT > USER > function, inside out; return it and the layers used."""
    coroutine = plan.pool.world is World.LOOP
    call = _innermost(plan)
    context_added = False
    used: list[Layer] = []
    for layer in reversed(layers):
        if not context_added and layer.spec.wrap is not None and layer.spec.wrap.name in ("TRACE", "TIMEOUT"):
            call, context_added = _in_context(call, coroutine=coroutine), True
        nxt, call = call, _wrapped(plan, layer, call)
        if call is not nxt:
            used.insert(0, layer)
    if not context_added:
        call = _in_context(call, coroutine=coroutine)
    return (_outermost_async(call) if coroutine else _outermost(call)), used


def _wrapped(plan: TaskPlan, layer: Layer, nxt: RunnerCall) -> RunnerCall:
    control, name = layer.control, layer.spec.name
    coroutine = plan.pool.world is World.LOOP
    generator = type(control).around is not Control.around
    if generator:
        call = (drive_async if coroutine else drive)(name, control.around, nxt)
    elif coroutine:
        call = control.wrap_async(plan, nxt)
        if call is nxt and type(control).wrap_async is Control.wrap_async and control.wrap(plan, nxt) is not nxt:
            problem = f"control {name!r} has no form for coroutine functions, but task {plan.name!r} runs on asyncio."
            raise ControlMismatch(problem, "Use another pool, or write the control as a generator: around(call).")
    else:
        call = control.wrap(plan, nxt)
    if call is nxt or type(control).__module__.startswith("boost_core."):
        return call
    return (guarded_async if coroutine else guarded)(name, layer.distribution, call)


def dispatch(run: Run) -> Any:
    """Run a run's own compiled call: what pools are opened with."""
    return run.task.call_own(run) if run.message.options else run.task.call(run)


# --- layers of core itself ----------------------------------------------------------------------------


def _innermost(plan: TaskPlan) -> RunnerCall:
    if plan.pool.world is not World.LOOP:
        return _function(plan)
    return _coroutine_function(plan) if plan.is_async else _function_in_thread(plan)


def _function(plan: TaskPlan) -> RunnerCall:
    function, decode = plan.function, plan.binder.decode

    def call(run: Run) -> Outcome:
        try:
            args, kwargs = decode(run.message)
        except DecodeError as error:
            return Failed(error, final=True)
        try:
            value = function(*args, **kwargs)
            return DONE if value is None else _returned(run, value)
        except Steer as steer:
            return _steered(run, steer)
        except BaseException as error:
            return _failure(run, error)

    return call


def _coroutine_function(plan: TaskPlan) -> RunnerCall:
    function, decode = plan.function, plan.binder.decode

    async def call(run: Run) -> Outcome:
        try:
            args, kwargs = decode(run.message)
        except DecodeError as error:
            return Failed(error, final=True)
        try:
            value = await function(*args, **kwargs)
            return DONE if value is None else _returned(run, value)
        except Steer as steer:
            return _steered(run, steer)
        except BaseException as error:
            return _failure(run, error)

    return call


def _function_in_thread(plan: TaskPlan) -> RunnerCall:
    import asyncio

    from boost_core.plan.sidethreads import side_threads

    call = _function(plan)

    async def threaded(run: Run) -> Outcome:
        try:
            return await side_threads.call(call, run)  # type: ignore[no-any-return]
        except asyncio.CancelledError as error:
            return _failure(run, error)

    return threaded


def _returned(run: Run, value: Any) -> Outcome:
    """Return what a value means: with a coroutine or a generator nothing, or not all, of the function has run."""
    kind = _UNRUN.get(type(value))
    if kind is None:
        return Done(value)
    if not isinstance(value, AsyncGeneratorType):
        value.close()  # so that Python doesn't warn of what never ran
    return Failed(
        BadOption(
            f"task {run.message.task!r} returned {kind}: what is in it didn't run.",
            "Have the function and each decorator around it run to their end: await the coroutine, loop over items.",
        ),
        final=True,
    )


def _steered(run: Run, steer: Any) -> Outcome:
    """Return what was raised to steer, its delay in seconds; with one that is no duration the job has failed."""
    name = "retry_after" if isinstance(steer, RateLimited) else "delay"
    value = getattr(steer, name, None)
    try:
        seconds = duration(value)
        if seconds is None and isinstance(steer, (Requeue, RateLimited)):
            message = "it is a number of seconds"
            raise ValueError(message)
    except ValueError as error:
        kind = type(steer).__name__
        return Failed(
            BadOption(f"task {run.message.task!r} raised {kind}({name}={value!r}), which can't be used: {error}")
        )
    if seconds is not None:
        setattr(steer, name, seconds)
    return steer  # type: ignore[no-any-return]


def _failure(run: Run, error: BaseException) -> Outcome:
    """What an exception of the function means: the end that was asked for, or a failure."""
    asked = run.cancel_reason
    if asked is not None and isinstance(error, (JobTimeout, JobCancelled)):
        return asked
    if asked is not None and type(error).__name__ == "CancelledError":
        return asked
    return Failed(error)


def _in_context(nxt: RunnerCall, *, coroutine: bool) -> RunnerCall:
    """Make ``current`` known inside; on asyncio each job is a Task with a context of its own already."""

    def enter(run: Run) -> Outcome:
        RUNNING.set(run)
        return nxt(run)  # type: ignore[no-any-return]

    def call(run: Run) -> Outcome:
        return copy_context().run(enter, run)

    async def call_async(run: Run) -> Outcome:
        RUNNING.set(run)
        return await nxt(run)  # type: ignore[no-any-return]

    return call_async if coroutine else call


def _outermost(nxt: RunnerCall) -> RunnerCall:
    def call(run: Run) -> Outcome:
        monotonic = run.clock.monotonic
        run.started = monotonic()
        try:
            outcome: Outcome = nxt(run)
        except Exception as error:
            outcome = Failed(error)
        run.finished = monotonic()
        return outcome

    return call


def _outermost_async(nxt: RunnerCall) -> RunnerCall:
    async def call(run: Run) -> Outcome:
        monotonic = run.clock.monotonic
        run.started = monotonic()
        try:
            outcome: Outcome = await nxt(run)
        except Exception as error:
            outcome = Failed(error)
        run.finished = monotonic()
        return outcome

    return call
