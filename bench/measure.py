"""How figures are taken: interleaved pairs, medians, and the interval that half of the pairs lie in."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the report: what was measured, the value, the spread, and what it must be."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    goal: str
    holds: bool
    note: str = ""

    def __str__(self) -> str:
        spread = f"[{self.low:.3g} .. {self.high:.3g}]"
        mark = "ok  " if self.holds else "MISS"
        return f"{mark} {self.name:<50} {self.value:>8.3g} {self.unit:<4} {spread:<20} {self.goal:<12} {self.note}"


def seconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def ratio(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    pairs: int,
    goal: float | None,
    note: str = "",
) -> Figure:
    """Return the speed of ``ours`` in terms of ``theirs``, over interleaved pairs: at least ``goal`` is wanted."""
    times = [(seconds(ours), seconds(theirs)) for _ in range(pairs)]
    return at_least(name, [other / one for one, other in times], goal, note)


def at_least(name: str, values: Sequence[float], goal: float | None, note: str = "") -> Figure:
    """Return the median of ratios that should reach ``goal``; without one it is only told."""
    middle, low, high = spread(values)
    return Figure(name, middle, low, high, "x", "" if goal is None else f">= {goal:g}", middle >= (goal or 0.0), note)


def at_most(name: str, values: Sequence[float], goal: float, note: str = "") -> Figure:
    """Return the median of ratios that must not exceed ``goal``."""
    middle, low, high = spread(values)
    return Figure(name, middle, low, high, "x", f"<= {goal:g}", middle <= goal, note)


def bound(name: str, values: Sequence[float], value: float, unit: str, at_most: float, note: str = "") -> Figure:
    """Return a figure of its own with the range of what it was taken from."""
    return Figure(name, value, min(values), max(values), unit, f"<= {at_most:g}", value <= at_most, note)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the median and the quartiles."""
    if len(values) < 4:
        return statistics.median(values), min(values), max(values)
    low, middle, high = statistics.quantiles(values, n=4)
    return middle, low, high
