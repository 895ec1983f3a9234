"""``boost explain``: everything that was decided about a task, and by what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from boost_core.cli.target import load_app
from boost_core.plan.compile import add_runner, wraps
from boost_core.plan.stages import ordered

if TYPE_CHECKING:
    from boost_core.app.app import App
    from boost_core.plan.compile import TaskPlan


@click.command()
@click.argument("target")
@click.argument("task", required=False)
def explain(target: str, task: str | None) -> None:
    """Show how TASK of TARGET (or each task) is put together: broker, pool, options, and its whole chain."""
    app = load_app((target,))
    for one in [app.task(task)] if task else app.tasks.values():
        plan = one.plan
        add_runner(plan)
        _show(app, plan)


def _show(app: App, plan: TaskPlan) -> None:
    provider = app.registry.provider
    click.echo(f"task {plan.name}   {plan.place}")
    click.echo(f"  queue    {plan.queue}")
    click.echo(f"  broker   {plan.broker.name}   {_from(provider(plan.broker))}")
    click.echo(f"           can: {', '.join(sorted(capability.value for capability in plan.broker.capabilities))}")
    click.echo(f"  pool     {plan.pool.name}   {_from(provider(plan.pool))}   {plan.concurrency} at once")
    click.echo(f"  codec    {plan.codec_name}")
    click.echo("  options")
    for name, value in plan.values.items():
        click.echo(f"    {name:<16} {_shown(value):<24} {plan.origins[name]}")
    for title, stage in (("gates", "gate"), ("call", "wrap"), ("outcome", "policy")):
        click.echo(f"  {title:<8} {' > '.join(_chain(plan, stage)) or '-'}")


def _chain(plan: TaskPlan, stage: str) -> list[str]:
    specs = ordered([layer.spec for layer in plan.layers], lambda spec: getattr(spec, stage))
    dists = {layer.spec.name: layer.distribution for layer in plan.layers}
    used = set(wraps(plan)) if stage == "wrap" else {spec.name for spec in specs}
    names = [f"{getattr(s, stage).name} {s.name} ({dists[s.name]})" for s in specs if s.name in used]
    return [*names, plan.name] if stage == "wrap" else names


def _from(provider: Any) -> str:
    return f"({provider.distribution} {provider.version})"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(item) for item in value) or "()"
    return value.__name__ if isinstance(value, type) else repr(value)
