"""The generated parts of docs/plugins.md: hooks and capabilities."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from sync.tables import table


def contracts_parts() -> dict[str, str]:
    """Return the parts of the page by name."""
    from boost_core.contracts.capability import Capability

    capabilities = table(("capability", "what it means"), ((f"`{item.value}`", item.doc) for item in Capability))
    return {"hooks": table(("hook", "what it does, and when"), _hooks()), "capabilities": capabilities}


def _hooks() -> Iterator[tuple[str, str]]:
    from boost_core.registry.hookspecs import Hooks

    for name, hook in vars(Hooks).items():
        if inspect.isfunction(hook):
            names = [parameter for parameter in inspect.signature(hook).parameters if parameter != "self"]
            yield f"`{name}({', '.join(names)})`", " ".join((inspect.getdoc(hook) or "").split())
