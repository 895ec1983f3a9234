"""``boost queue``: what queues hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import click

from boost_core.cli.broker import opened_broker, project, queue_name, queue_names, stranger
from boost_core.cli.output import output_option, show_facts, show_rows

if TYPE_CHECKING:
    from boost_core.contracts.broker import SyncBroker


@click.group()
def queue() -> None:
    """See what queues hold."""


@queue.command("list")
@click.argument("targets", nargs=-1, metavar="[TARGET...]")
@click.option("--broker", help="Broker: a name or a URL; the project's own unless given.")
@output_option
def list_queues(targets: tuple[str, ...], broker: str | None, output: str) -> None:
    """List the queues of TARGET's tasks, or all that the broker knows."""
    rows = [{**_row(opened, name), "broker": opened.spec.name} for opened, name in queue_names(targets, broker)]
    show_rows(rows, ("queue", "ready", "delayed", "running", "dead", "broker"), output, "no queues")


@queue.command("show")
@click.argument("name")
@click.option("--broker", help="Broker: a name or a URL; the project's own unless given.")
@output_option
def show_queue(name: str, broker: str | None, output: str) -> None:
    """Show one queue and where it lives. NAME is as the project writes it, or as lists show it with its namespace."""
    app = project(broker)
    name = queue_name(app, name)
    opened = opened_broker(app)
    show_facts({**_row(opened, name), "broker": opened.spec.name, "where": opened.where()}, output)
    if unknown := stranger(opened, name):
        click.echo(unknown, err=True)


def _row(broker: SyncBroker, name: str) -> dict[str, Any]:
    depth = attrs.evolve(broker.depth(name), dead=broker.depth(f"{name}.dead").ready)
    return {"queue": name, **attrs.asdict(depth)}
