"""``boost plugins``: everything that is found, and whether it can be used."""

from __future__ import annotations

import os
from pathlib import Path

import click

from boost_core.cli.output import output_option, show_rows
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
        for found in Registry(Settings.load(Path.cwd(), os.environ, {}).get("disable")).status()
    ]
    columns = ("kind", "name", "distribution", "version", "api", "status", "capabilities")
    show_rows(rows, columns, output, "no plugins")
