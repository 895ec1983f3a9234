"""``boost plugins``: everything that is found, and whether it can be used."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import click

from boost_core.cli.output import output_option, show_rows
from boost_core.errors import BoostError
from boost_core.registry.registry import Registry
from boost_core.settings import Settings


@click.command()
@output_option
def plugins(output: str) -> None:
    """List all plugins found: kind, name, distribution, version, api, capabilities and status. Never fails."""
    rows = [
        {
            "kind": found.kind,
            "name": found.name,
            "distribution": found.distribution,
            "version": found.version,
            "api": found.api,
            "status": found.status,
            "capabilities": sorted(found.capabilities),
        }
        for found in Registry(_disabled()).status()
    ]
    columns = ("kind", "name", "distribution", "version", "api", "status", "capabilities")
    show_rows(rows, columns, output, "no plugins")


def _disabled() -> Sequence[str]:
    """Return what the settings disable; where they can't be read that is said, and nothing is."""
    try:
        return cast("Sequence[str]", Settings.read("disable", Path.cwd(), os.environ))
    except BoostError as error:
        click.echo(f"nothing is taken for disabled: {error}", err=True)
        return ()
