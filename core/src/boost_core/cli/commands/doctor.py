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
from boost_core.errors import BoostError
from boost_core.registry.registry import load_object

if TYPE_CHECKING:
    from boost_core.app.app import App

DANGER = 5
"""The exit code where something found is a danger."""


@click.command()
@click.argument("targets", nargs=-1, metavar="[TARGET...]")
@click.option("--broker", help="Look at this broker instead of those of the tasks: a name or a URL.")
@output_option
@click.pass_context
def doctor(context: click.Context, targets: tuple[str, ...], broker: str | None, output: str) -> None:
    """Check the brokers that TARGET's tasks use (or the project's own), and this machine; say each remedy.

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
    app.boost("doctor")(_nothing)  # stands for the tasks that there are none of
    return app


def _nothing() -> None: ...


def _tell(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        click.echo(f"{row['level']:<8} {row['check']:<20} {row['what']}")
        if row["remedy"]:
            click.echo(f"{'':<29} {row['remedy']}")


def _findings(app: App) -> Iterator[tuple[str, Finding]]:
    plans: dict[Any, list[Any]] = defaultdict(list)
    for task in app.tasks.values():
        try:
            plans[task.plan.broker, task.plan.broker_options].append(task.plan)
        except BoostError as error:
            yield f"task {task.name}", Finding(Level.DANGER, _one_line(error), "boost explain shows the whole error.")
    examined: list[tuple[str, Examined, Any]] = []
    for (spec, options), its in plans.items():
        try:
            broker = app.services.broker(spec, options)
        except Exception as error:  # also what is a plugin's own defect: the other checks tell the rest
            yield spec.name, Finding(Level.DANGER, *_told(error))
            continue
        yield spec.name, Finding(Level.OK, f"reached at {broker.where()}")
        subject = Examined(broker=getattr(broker, "inner", broker), app=app, plans=tuple(its))
        examined.append((spec.name, subject, broker))
    everything = Examined(app=app, plans=tuple(plan for its in plans.values() for plan in its))
    for check in app.registry.checks():
        if check.broker is None:
            yield from ((check.name, finding) for finding in _run(check, everything, None))
        for name, subject, opened in examined:
            if name == check.broker:
                yield from ((check.name, finding) for finding in _run(check, subject, opened))


def _run(check: Check, subject: Examined, broker: Any) -> Iterable[Finding]:
    try:
        function = load_object(check.run)
        if inspect.iscoroutinefunction(function):
            return list(broker.portal.call(lambda: function(subject), broker.timeout))
        return list(function(subject))
    except Exception as error:
        return [Finding(Level.WARNING, f"the check itself failed: {type(error).__name__}: {error}")]


def _told(error: Exception) -> tuple[str, str | None]:
    if not isinstance(error, BoostError):
        return f"{type(error).__name__}: {error}", None
    text, _, fix = str(error).partition("\n")
    return text, fix.strip() or None


def _one_line(error: BoostError) -> str:
    return " ".join(str(error).split())
