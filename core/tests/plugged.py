"""Controls of a test, found by its app as if an installed distribution provided them."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import attrs
import pytest
from boost_core import App
from boost_core.plugin import Around, Control, ControlContext, ControlSpec, Run, hookimpl, option
from boost_core.registry.index import Entry, installed
from boost_core.registry.registry import Registry

DISTRIBUTION = "acme-controls"

_numbers = itertools.count()


@attrs.frozen(kw_only=True)
class Brought:
    """One control of a test: its name, what makes it, and the other facts of its spec."""

    name: str
    factory: Callable[[ControlContext], Control]
    facts: dict[str, Any]


def control(name: str, factory: Callable[[ControlContext], Control], **facts: Any) -> Brought:
    """Return a control for ``plug``; ``facts`` are fields of its spec: ``wrap``, ``gate``, ``options``, ..."""
    return Brought(name=name, factory=factory, facts=facts)


def importable(thing: Any) -> str:
    """Return a path by which a spec's ``factory`` may name ``thing``, a class of a test."""
    module = ModuleType(f"acme_factory_{next(_numbers)}")
    sys.modules[module.__name__] = module
    module.thing = thing
    return f"{module.__name__}:thing"


def built_ins() -> list[Entry]:
    """Return the entry points of core itself: its tests are the same whatever is installed beside it."""
    return [entry for entry in installed() if entry.distribution == "boost-core"]


def plug(app: App, *brought: Brought) -> None:
    """Let an app that wasn't used yet find these controls beside core's own."""
    specs = [ControlSpec(name=one.name, factory=importable(one.factory), **one.facts) for one in brought]
    module = ModuleType(f"acme_controls_{next(_numbers)}")
    sys.modules[module.__name__] = module

    @hookimpl
    def boost_controls() -> list[ControlSpec]:
        return specs

    module.boost_controls = boost_controls
    entries = [
        Entry(
            kind="control",
            name=one.name,
            module=module.__name__,
            distribution=DISTRIBUTION,
            version="1.2.3",
            location="/nowhere",
        )
        for one in brought
    ]
    app.registry = Registry(app.settings.get("disable"), [*built_ins(), *entries])


def options_of(**options: Any) -> type:
    """Return a frozen class of task options: ``name=(type, default)``, each one open to single messages."""
    fields = {name: option(default, help=name, message=True) for name, (_, default) in options.items()}
    made = type("Options", (), {**fields, "__annotations__": {name: kind for name, (kind, _) in options.items()}})
    return attrs.frozen(kw_only=True)(made)


worlds = pytest.mark.parametrize("world", ["threads", "solo", "asyncio"])


def task_in(app: App, world: str, function: Callable[[str], Any], **options: Any) -> Any:
    """Declare ``function`` as the task ``job`` of a world: on asyncio as a coroutine function."""

    async def coroutine(text: str) -> Any:
        return function(text)

    def plain(text: str) -> Any:
        return function(text)

    chosen = coroutine if world == "asyncio" else plain
    return app.boost("job", pool=world, results=True, **options)(chosen)


def around(body: Callable[[Run], Around]) -> Any:
    """Return a generator control whose ``around`` is ``body``."""
    return type("Bodied", (Control,), {"around": lambda _self, call: body(call)})
