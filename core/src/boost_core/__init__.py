"""boost turns any Python function into a distributed one: ``@boost("queue")``, then ``f.push(...)`` from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

__version__ = "0.1.0"

if TYPE_CHECKING:
    from boost_core.app.app import App
    from boost_core.app.job import Job
    from boost_core.app.task import Task
    from boost_core.options import Secret
    from boost_core.plan.current import current
    from boost_core.types import Drop, RateLimited, Reject, Requeue, Retry

P = ParamSpec("P")
R = TypeVar("R")

_HOMES = {
    "App": "boost_core.app.app",
    "Job": "boost_core.app.job",
    "Task": "boost_core.app.task",
    "Secret": "boost_core.options",
    "current": "boost_core.plan.current",
    "Drop": "boost_core.types",
    "RateLimited": "boost_core.types",
    "Reject": "boost_core.types",
    "Requeue": "boost_core.types",
    "Retry": "boost_core.types",
}

__all__ = [
    "App",
    "Drop",
    "Job",
    "RateLimited",
    "Reject",
    "Requeue",
    "Retry",
    "Secret",
    "Task",
    "boost",
    "current",
    "default_app",
]

_default: App | None = None


def default_app() -> App:
    """Return the app that the module-level ``boost`` declares on; made at its first use."""
    global _default  # noqa: PLW0603 - the one default app of a process
    if _default is None:
        from boost_core.app.app import App

        _default = App("default")
    return _default


def boost(
    queue: str | None = None, /, *, name: str | None = None, **options: Any
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Return a decorator that declares a function as a task of the default app; see ``App.boost``."""
    return default_app().boost(queue, name=name, **options)


def __getattr__(name: str) -> Any:
    # Loaded at first use: `import boost_core` stays light.
    home = _HOMES.get(name)
    if home is None:
        message = f"module 'boost_core' has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    value = getattr(import_module(home), name)
    globals()[name] = value
    return value
