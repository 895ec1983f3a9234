"""The way of a message by itself: no-op jobs on the memory broker, real acks, JSON, all built-in controls."""

from __future__ import annotations

import time
from typing import Any

from boost_core import App

from bench.measure import Figure, at_most, seconds, spread

JOBS = 20_000
BUDGET = 10.0
"""Microseconds that one job may cost on 8 threads (docs/design.md)."""


def calibrate() -> None:
    """Do a million trivial steps in plain Python, to know how fast this machine is."""
    total = 0
    for number in range(1_000_000):
        total += number & 3


def drain(pool: str, concurrency: int) -> float:
    """Return the seconds that JOBS waiting no-op jobs take from the worker's start to the last ack."""
    app = App("bench", broker="memory", store="memory")
    function = _coroutine if pool == "asyncio" else _plain
    task: Any = app.boost("noop", pool=pool, concurrency=concurrency)(function)
    task.push_many((number,) for number in range(JOBS))
    worker = app.worker()
    started = time.perf_counter()
    with worker:
        while worker.counts["done"] < JOBS:
            time.sleep(0.001)
        taken = time.perf_counter() - started
    app.close()
    return taken


def _plain(number: int) -> None: ...


async def _coroutine(number: int) -> None: ...


def figures() -> list[Figure]:
    """Return the memory figures."""
    return [
        _per_job(),
        _asyncio(),
    ]


def _asyncio() -> Figure:
    values = [drain("asyncio", 100) / drain("threads", 8) for _ in range(9)]
    return at_most("asyncio's time over threads', no-op drain", values, 1.7, "each job a Task of its own")


def _per_job() -> Figure:
    """One job in microseconds; the note gives it in steps of a plain Python loop, to compare machines."""
    values, steps = [], []
    for _ in range(9):
        step = seconds(calibrate)  # a million steps: seconds are microseconds a step
        value = drain("threads", 8) / JOBS * 1e6
        values.append(value)
        steps.append(value / step)
    middle, low, high = spread(values)
    note = f"= {spread(steps)[0]:.0f} steps of a plain loop; ack after the run, nothing persistent"
    holds = middle <= BUDGET
    return Figure("memory no-op job, 8 threads, all controls", middle, low, high, "us", f"<= {BUDGET:g}", holds, note)
