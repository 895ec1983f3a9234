"""``boost explain``: everything that was decided about a task, and by what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from boost_core.cli.target import load_app
from boost_core.contracts.specs import Spec
from boost_core.options import mask_url
from boost_core.plan.compile import add_runner

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
    click.echo(f"  broker   {plan.broker.name}   {_from(provider(plan.broker))}   {_origin(app, plan, 'broker')}")
    click.echo(f"           can: {', '.join(sorted(capability.value for capability in plan.broker.capabilities))}")
    click.echo(
        f"  pool     {plan.pool.name}   {_from(provider(plan.pool))}   {plan.concurrency} at once"
        f"   {_origin(app, plan, 'pool')}"
    )
    click.echo(f"  codec    {plan.codec_name}   {_origin(app, plan, 'codec')}")
    click.echo("  options")
    for name, value in plan.values.items():
        shown = _options(plan, value) if name == "broker_options" else _shown(value)
        click.echo(f"    {name:<16} {shown:<24} {plan.origins[name]}")
    call, own = _chain(plan, "wrap"), _chain(plan, "wrap_own")
    click.echo(f"  gates    {_chain(plan, 'gate') or '-'}")
    click.echo(f"  call     {call}")
    if own != call:
        click.echo(f"           {own}   (messages with options of their own)")
    click.echo(f"  outcome  {_chain(plan, 'policy') or '-'}")


def _chain(plan: TaskPlan, chain: str) -> str:
    stage = chain.removesuffix("_own")
    layers = plan.chains[chain]
    names = [f"{getattr(layer.spec, stage).name} {layer.spec.name} ({layer.distribution})" for layer in layers]
    return " > ".join([*names, plan.name] if stage == "wrap" else names)


def _from(provider: Any) -> str:
    return f"({provider.distribution} {provider.version})"


def _origin(app: App, plan: TaskPlan, name: str) -> str:
    """Where the choice of a plugin comes from: the task's option, else the app's setting."""
    return plan.origins[name] if plan.values[name] is not None else app.settings.origin(name)


def _options(plan: TaskPlan, given: Any) -> str:
    """Broker options as they were understood: what is secret is one of those that mask themselves."""
    return "{" + ", ".join(f"{name}={_shown(getattr(plan.broker_options, name))}" for name in given) + "}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(_shown(item) for item in value) or "()"
    if isinstance(value, Spec):
        return value.name
    if isinstance(value, str) and "://" in value:
        return repr(mask_url(value))
    return value.__name__ if isinstance(value, type) else repr(value)
