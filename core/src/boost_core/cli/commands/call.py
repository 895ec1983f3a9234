"""``boost call``: push one job from the shell."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any, Final

import click
import msgspec

from boost_core.cli.parameters import seconds
from boost_core.cli.target import load_app
from boost_core.errors import BadOption

_NUMBER: Final = re.compile(r"-\.?\d.*")


class _Command(click.Command):
    """Takes negative numbers for arguments, and nothing else that begins with a dash, unless it stands after ``--``."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        context.ignore_unknown_options = True
        known = [name for parameter in self.get_params(context) for name in parameter.opts]
        for text in itertools.takewhile(lambda text: text != "--", args):
            name = text.partition("=")[0]
            if len(text) > 1 and text.startswith("-") and name not in known and not _NUMBER.fullmatch(text):
                raise click.NoSuchOption(name, possibilities=known, ctx=context)
        return super().parse_args(context, args)


@click.command(cls=_Command)
@click.argument("target")
@click.argument("task")
@click.argument("args", nargs=-1)
@click.option("--kw", "keywords", default="{}", metavar="JSON", help="Keyword arguments as a JSON object.")
@click.option("--broker", help="Broker of the task, whatever it says: a name or a URL.")
@click.option("--delay", help="Start no earlier than this from now: 5m, 1h30m, or seconds.")
@click.option("--priority", type=int, help="Higher ones go first.")
@click.option("--wait", metavar="DURATION", callback=seconds, help="Wait so long for the result and print it.")
def call(
    target: str,
    task: str,
    args: tuple[str, ...],
    keywords: str,
    broker: str | None,
    delay: str | None,
    priority: int | None,
    wait: float | None,
) -> None:
    """Push a job of TASK declared in TARGET. Each argument is JSON, or text where it isn't."""
    app = load_app((target,), broker)
    given: dict[str, Any] = {"delay": delay, "priority": priority}
    own = {name: value for name, value in given.items() if value is not None}
    if wait is not None:
        own["results"] = True  # asked for here, whatever the task says
    try:
        job = app.task(task).options(**own).push(*map(_value, args), **_keywords(keywords))
    except TypeError as error:  # the arguments don't fit the function
        raise click.UsageError(str(error)) from error
    click.echo(job.id if wait is None else msgspec.json.encode(job.get(timeout=wait)).decode())
    app.close()


def _value(text: str) -> Any:
    try:
        return _json(text)
    except ValueError:
        return text


def _json(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> Any:
    """NaN and Infinity are words like others: JSON has no such numbers."""
    message = f"JSON has no {name}"
    raise ValueError(message)


def _keywords(text: str) -> dict[str, Any]:
    try:
        value = _json(text)
    except ValueError as error:
        raise BadOption(
            f"--kw {text!r} is no JSON: {error}", "Give a JSON object such as '{\"width\": 200}'."
        ) from error
    if not isinstance(value, dict):
        raise BadOption(f"--kw {text!r} is no JSON object.", "Give one such as '{\"width\": 200}'.")
    return value
