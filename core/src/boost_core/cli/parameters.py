"""How values on the command line are read."""

from __future__ import annotations

import click

from boost_core.options import duration


def seconds(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """Read an option of seconds, or text such as ``1h30m``; anything else is a usage error that says why."""
    try:
        return duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from error
