"""Opens the broker that a read command looks at: of a target's tasks, or the project's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from boost_core.app.app import App
from boost_core.cli.target import load_app
from boost_core.errors import BadName, UnsupportedCapability
from boost_core.errors.base import guess
from boost_core.names import DEAD_SUFFIX, check_name
from boost_core.settings import url_option

if TYPE_CHECKING:
    from boost_core.contracts.broker import SyncBroker


def project(chosen: str | None) -> App:
    """Return an app with the project's settings; its broker is the one chosen on the command line, if any."""
    given: dict[str, Any] = {"broker": chosen} if chosen else {}
    return App("command", **given)


def opened_broker(app: App) -> SyncBroker:
    """Return the broker of an app's settings, opened."""
    spec, url = app.registry.find("broker", app.settings.get("broker"))
    return app.services.broker(spec, app.settings.plugin_options(spec, url_option(spec, url)))


def queue_name(app: App, given: str) -> str:
    """Return a queue's name at the broker; ``given`` is the project's word for it, or what lists show.

    Raises ``BadName`` where no queue can have it.
    """
    prefix = app.settings.prefix
    try:
        return check_name("queue", given if given.startswith(prefix) else f"{prefix}{given}")
    except BadName as error:
        raise BadName("argument", given, error.problem) from None


def stranger(broker: SyncBroker, name: str) -> str | None:
    """Return what to say of a queue that the broker hasn't heard of; None where it has, or can't tell."""
    try:
        known = _work_queues(broker.queues())
    except UnsupportedCapability:
        return None
    if name in known:
        return None
    close = guess(name, known)
    return f"there is no queue {name!r} yet" + (f"; did you mean {close!r}?" if close else "")


def queue_names(targets: tuple[str, ...], chosen: str | None) -> Iterator[tuple[SyncBroker, str]]:
    """Yield the broker and name of each work queue: of the targets' tasks, else all that the broker knows."""
    if not targets:
        broker = opened_broker(project(chosen))
        yield from ((broker, name) for name in _work_queues(broker.queues()))
        return
    app = load_app(targets, chosen)
    found = {(task.plan.queue, app.publisher.broker(task.plan)) for task in app.tasks.values()}
    for name, broker in sorted(found, key=lambda one: (one[0], one[1].spec.name, one[1].where())):
        yield broker, name


def _work_queues(names: Iterable[str]) -> list[str]:
    return [name for name in names if not name.endswith(DEAD_SUFFIX)]
