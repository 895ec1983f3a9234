"""How read commands print: a table for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "name"]),
    default="table",
    help="Table, JSON, or the first column only.",
)


def show_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], output: str, empty: str) -> None:
    """Print rows in the chosen form; ``empty`` is said where there are none."""
    if output == "json":
        _json(rows)
    elif output == "name":
        for row in rows:
            click.echo(row[columns[0]])
    elif not rows:
        click.echo(empty)
    else:
        _table(rows, columns)


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    texts = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[place]) for line in texts)) for place, column in enumerate(columns)]
    for line in [[column.upper() for column in columns], *texts]:
        click.echo("  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def show_facts(facts: Mapping[str, Any], output: str) -> None:
    """Print one thing's facts: a line each, an object, or the first one only."""
    if output == "json":
        _json(facts)
    elif output == "name":
        click.echo(next(iter(facts.values())))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            text = _cell(value)
            click.echo(f"{name:<{width}}  {text}" if "\n" not in text else f"{name}:\n{text}")


def show_each(things: Sequence[Mapping[str, Any]], output: str) -> None:
    """Print the facts of each thing, a blank line between two; as JSON one list."""
    if output == "json":
        _json(things)
        return
    for place, facts in enumerate(things):
        if place and output == "table":
            click.echo()
        show_facts(facts, output)


def _json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))
