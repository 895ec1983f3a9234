"""``boost doctor``: whether what the tasks rely on can be relied on."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from boost_core.cli.output import output_option, show_rows
from boost_core.cli.target import load_app
from boost_core.contracts.check import Check, Examined, Finding, Level
from boost_core.errors import BoostError, BrokerUnavailable
from boost_core.registry.registry import load_object
from boost_core.types import new_id

if TYPE_CHECKING:
    from boost_core.app.app import App

DANGER = 5
"""The exit code where something found is a danger."""

_TRIAL_SECONDS = 60.0


@click.command()
@click.argument("targets", nargs=-1, metavar="[TARGET...]")
@click.option("--broker", help="Look at this broker instead of those of the tasks: a name or a URL.")
@output_option
@click.pass_context
def doctor(context: click.Context, targets: tuple[str, ...], broker: str | None, output: str) -> None:
    """Check the brokers and stores that TARGET's tasks use (or the project's own), and this machine; say each remedy.

    Ends with 5 where messages can be lost or a worker couldn't work.
    """
    app = load_app(targets, broker=broker) if targets else _app(broker)
    rows = [
        {"level": finding.level.value, "check": name, "what": finding.text, "remedy": finding.remedy}
        for name, finding in _findings(app)
    ]
    if output == "table":
        _tell(rows)
    else:
        show_rows(rows, ("check", "level", "what", "remedy"), output, "nothing to check")
    app.close()
    if any(row["level"] == Level.DANGER.value for row in rows):
        context.exit(DANGER)


def _app(broker: str | None) -> App:
    from boost_core.app.app import App

    app = App("doctor")
    if broker:
        app.override(broker=broker)
    kept: dict[str, Any] = {"results": True} if app.settings.get("store") else {}
    app.boost("doctor", **kept)(_nothing)  # stands for the tasks that there are none of
    return app


def _nothing() -> None: ...


def _tell(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        click.echo(f"{row['level']:<8} {row['check']:<20} {row['what']}")
        if row["remedy"]:
            click.echo(f"{'':<29} {row['remedy']}")


def _findings(app: App) -> Iterator[tuple[str, Finding]]:
    plans: list[Any] = []
    for task in app.tasks.values():
        try:
            plans.append(task.plan)
        except BoostError as error:
            yield f"task {task.name}", Finding(Level.DANGER, _one_line(error), "boost explain shows the whole error.")
    opened: list[tuple[str, Examined, Any]] = []
    for (spec, options), its in _by_broker(plans).items():
        try:
            broker = app.services.broker(spec, options)
        except Exception as error:  # also what is a plugin's own defect: the other checks tell the rest
            yield spec.name, _danger(error)
            continue
        yield spec.name, Finding(Level.OK, f"reached at {broker.where()}")
        opened.append((spec.name, Examined(broker=getattr(broker, "inner", broker), app=app, plans=its), broker))
    yield from _of_stores(app, plans)
    for check in app.registry.checks():
        if check.broker is None:
            yield from _run(check, Examined(app=app, plans=tuple(plans)), None)
        for name, subject, broker in opened:
            if name == check.broker:
                yield from _run(check, subject, broker)


def _by_broker(plans: Iterable[Any]) -> dict[Any, tuple[Any, ...]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for plan in plans:
        groups[plan.broker, plan.broker_options].append(plan)
    return {key: tuple(its) for key, its in groups.items()}


def _of_stores(app: App, plans: Iterable[Any]) -> Iterator[tuple[str, Finding]]:
    """Open each store that the tasks need as a worker does, and use it."""
    needed = {app.services.store_choice(plan): plan for plan in plans if plan.needs_store(plan.values)}
    for (chosen, _), plan in needed.items():
        name, key = f"store {app.registry.find('store', chosen)[0].name}", f"doctor:{new_id()}"
        try:
            store = app.services.store(plan)
            store.put({key: b""}, _TRIAL_SECONDS)
            store.get([key])
            store.delete([key])
        except Exception as error:  # as with brokers
            yield name, _danger(error)
        else:
            yield name, Finding(Level.OK, "reached, written and read")


def _run(check: Check, subject: Examined, broker: Any) -> list[tuple[str, Finding]]:
    try:
        function = load_object(check.run)
        if inspect.iscoroutinefunction(function):
            findings = broker.portal.call(lambda: function(subject), broker.timeout)
        else:
            findings = function(subject)
        return [(check.name, finding) for finding in findings]
    except BrokerUnavailable as error:  # it was there a moment ago
        return [(check.name, _danger(error))]
    except Exception as error:
        return [(check.name, Finding(Level.WARNING, f"the check itself failed: {type(error).__name__}: {error}"))]


def _danger(error: Exception) -> Finding:
    if not isinstance(error, BoostError):
        return Finding(Level.DANGER, f"{type(error).__name__}: {error}")
    text, _, fix = str(error).partition("\n")
    return Finding(Level.DANGER, text, fix.strip() or None)


def _one_line(error: BoostError) -> str:
    return " ".join(str(error).split())
