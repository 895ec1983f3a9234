"""The order of controls: fixed stages, and inside a stage ``before`` and ``after`` by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

from boost_core.contracts.specs import ControlSpec
from boost_core.errors import ControlMismatch

# The orders themselves, outermost or first to last, are the members of
# WrapStage, GateStage and PolicyStage in contracts/specs.py.


def ordered(specs: Sequence[ControlSpec], stage_of: Callable[[ControlSpec], Any]) -> list[ControlSpec]:
    """Return the specs that take part (their stage isn't None), first to last.

    Raises ``ControlMismatch`` for circular references; an order relative to a control that this
    task doesn't use is no order at all.
    """
    taking_part = [spec for spec in specs if stage_of(spec) is not None]
    stages = sorted({stage_of(spec) for spec in taking_part})
    return [spec for stage in stages for spec in _within([s for s in taking_part if stage_of(s) is stage])]


def check_references(specs: Sequence[ControlSpec], known: Sequence[str]) -> None:
    """Raise ``ControlMismatch`` where ``before`` or ``after`` names a control that isn't installed."""
    for spec in specs:
        for name in (*spec.before, *spec.after):
            if name not in known:
                problem = f"control {spec.name!r} orders itself relative to {name!r}, which is no installed control."
                raise ControlMismatch(problem, f"Installed controls: {', '.join(sorted(known))}")


def _within(specs: Sequence[ControlSpec]) -> list[ControlSpec]:
    by_name = {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.name)}
    graph: dict[str, set[str]] = {name: set() for name in by_name}
    for spec in by_name.values():
        graph[spec.name].update(name for name in spec.after if name in by_name)
        for name in spec.before:
            if name in by_name:
                graph[name].add(spec.name)
    try:
        return [by_name[name] for name in TopologicalSorter(graph).static_order()]
    except CycleError as error:
        circle = " > ".join(error.args[1])
        problem = f"controls order themselves in a circle: {circle}"
        raise ControlMismatch(problem, "Remove one of their before= or after=.") from error
