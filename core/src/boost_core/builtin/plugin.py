"""Specs of the built-ins; read by the registry like any plugin module."""

from __future__ import annotations

from collections.abc import Sequence

from boost_core.contracts.capability import Capability
from boost_core.contracts.check import Check
from boost_core.contracts.specs import (
    BrokerSpec,
    CodecSpec,
    ControlSpec,
    Guarantee,
    Limits,
    PolicyStage,
    PoolSpec,
    StoreSpec,
    World,
    WrapStage,
)
from boost_core.controls.result import ResultOptions
from boost_core.controls.retry import RetryOptions
from boost_core.controls.timeout import TimeoutOptions
from boost_core.registry.hookspecs import hookimpl

MEMORY = BrokerSpec(
    name="memory",
    factory="boost_core.builtin.memory:MemoryBroker",
    capabilities=frozenset(
        {
            Capability.ACK,
            Capability.REPLACE,
            Capability.DELAY,
            Capability.PRIORITY,
            Capability.ORDERED,
            Capability.BATCH_PUBLISH,
            Capability.BATCH_FETCH,
            Capability.BATCH_ACK,
            Capability.DEPTH,
            Capability.PURGE,
            Capability.PEEK,
            Capability.TTL,
        }
    ),
    limits=Limits(max_body=64 * 1024 * 1024, priorities=256),
    guarantees=(Guarantee(worker_killed="lost with its process", all_killed="lost", power_cut="lost"),),
    store="memory",
    summary="Inside one process, for tests and small programs; dies with it.",
)


@hookimpl
def boost_brokers() -> Sequence[BrokerSpec]:
    """Return the broker of core."""
    return (MEMORY,)


@hookimpl
def boost_pools() -> Sequence[PoolSpec]:
    """Return the pools of core."""
    return (
        PoolSpec(
            name="threads",
            factory="boost_core.builtin.threads:ThreadPool",
            world=World.THREADED,
            concurrency=16,
            summary="Plain functions on long-lived threads.",
        ),
        PoolSpec(
            name="asyncio",
            factory="boost_core.builtin.aio:AsyncioPool",
            world=World.LOOP,
            concurrency=100,
            summary="Coroutine functions on an event loop in a thread of its own.",
        ),
        PoolSpec(
            name="solo",
            factory="boost_core.builtin.solo:SoloPool",
            world=World.INLINE,
            concurrency=1,
            maximum=1,
            summary="One plain function at a time, always in the same thread.",
        ),
    )


@hookimpl
def boost_codecs() -> Sequence[CodecSpec]:
    """Return the codec of core."""
    return (CodecSpec(name="json", factory="boost_core.builtin.json_codec:JsonCodec", summary="JSON, by annotations."),)


@hookimpl
def boost_stores() -> Sequence[StoreSpec]:
    """Return the store of core."""
    return (
        StoreSpec(
            name="memory",
            factory="boost_core.builtin.memory_store:MemoryStore",
            shared=False,
            summary="Inside one process, for tests and small programs; dies with it.",
        ),
    )


@hookimpl
def boost_controls() -> Sequence[ControlSpec]:
    """Return the controls of core."""
    return (
        ControlSpec(
            name="retry",
            factory="boost_core.controls.retry:RetryControl",
            options=RetryOptions,
            policy=PolicyStage.RETRY,
            summary="How often a failed job runs again, and when.",
        ),
        ControlSpec(
            name="timeout",
            factory="boost_core.controls.timeout:TimeoutControl",
            options=TimeoutOptions,
            wrap=WrapStage.TIMEOUT,
            summary="How long a run may take.",
        ),
        ControlSpec(
            name="result",
            factory="boost_core.controls.result:ResultControl",
            options=ResultOptions,
            wrap=WrapStage.CONTEXT,
            policy=PolicyStage.RESULT,
            summary="Stores what a job returned, or how it ended.",
        ),
    )


@hookimpl
def boost_checks() -> Sequence[Check]:
    """Return what ``boost doctor`` looks at whatever the brokers are."""
    return tuple(
        Check(name=name.replace("_", "-"), run=f"boost_core.builtin.checks:{name}")
        for name in ("plugins", "open_files", "secrets", "disk", "time_zones")
    )
