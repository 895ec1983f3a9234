"""``boost brokers``: what each installed broker can do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from boost_core.cli.output import output_option, show_rows
from boost_core.contracts.capability import Capability
from boost_core.contracts.specs import BrokerSpec
from boost_core.errors import BoostError
from boost_core.registry.registry import Registry
from boost_core.settings import Settings


@click.command()
@output_option
def brokers(output: str) -> None:
    """Show which broker can do what, by their specs with default options: nothing is connected."""
    settings = Settings.load(Path.cwd(), os.environ, {})
    registry = Registry(settings.get("disable"))
    specs = [spec for name in registry.installed("broker") if (spec := _spec(registry, name)) is not None]
    rows = [_row(spec) for spec in specs]
    if output != "table":
        show_rows(rows, ("broker",), output, "no brokers")
        return
    names = [spec.name for spec in specs]
    table = [
        {"capability": able.value, **{spec.name: "yes" if able in spec.capabilities else "-" for spec in specs}}
        for able in Capability
    ]
    limits = [{"capability": limit, **{row["broker"]: row[limit] for row in rows}} for limit in _LIMITS]
    show_rows([*table, *limits], ("capability", *names), output, "no brokers")


_LIMITS = ("max_body", "max_delay", "priorities", "lease", "takeover")


def _spec(registry: Registry, name: str) -> BrokerSpec | None:
    try:
        spec = registry.broker(name)
        return registry.effective(spec, spec.options())
    except (BoostError, TypeError):  # broken, or with an option that must be given
        return None


def _row(spec: BrokerSpec) -> dict[str, Any]:
    limits = {limit: getattr(spec.limits, limit) for limit in _LIMITS}
    return {
        "broker": spec.name,
        "capabilities": sorted(item.value for item in spec.capabilities),
        **limits,
        "summary": spec.summary,
    }
