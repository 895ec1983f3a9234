"""``boost worker``: work on the tasks of a target until told to stop."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Final

import click

from boost_core.cli.parameters import seconds
from boost_core.cli.target import load_app
from boost_core.worker.signals import Signals, stop_hearing

if TYPE_CHECKING:
    from boost_core.worker.worker import Worker

HANDED_BACK: Final = 75
FORCED_INT: Final = 130
FORCED_QUIT: Final = 131
_STOP: Final = 2
"""The force that asks running jobs to end: the second Ctrl-C, or SIGQUIT; more is to leave at once."""
_BURST_SECONDS: Final = 0.2


@click.command()
@click.argument("targets", nargs=-1, metavar="TARGET...")
@click.option(
    "-q", "--queue", "queues", multiple=True, help="Only this queue; may be given several times, or with commas."
)
@click.option("--broker", help="Broker of all tasks, whatever they say: a name or a URL.")
@click.option("--pool", help="Run all tasks on this pool: threads, asyncio, solo, ...")
@click.option("--concurrency", type=click.IntRange(min=1), help="At most so many runs at once in this process.")
@click.option("--burst", is_flag=True, help="Leave once no queue has anything ready or running.")
@click.option(
    "--drain-timeout",
    metavar="DURATION",
    callback=seconds,
    help="How long running jobs may go on after SIGTERM or Ctrl-C [default: 25s].",
)
def worker(
    targets: tuple[str, ...],
    queues: tuple[str, ...],
    broker: str | None,
    pool: str | None,
    concurrency: int | None,
    *,
    burst: bool,
    drain_timeout: float | None,
) -> None:
    """Work on the tasks of TARGET: a module, module:app, or the path of a .py file.

    SIGTERM and the first Ctrl-C drain: running jobs end, nothing new starts. A second Ctrl-C asks running jobs to
    end and gives their messages back, a third one leaves at once.
    """
    app = load_app(targets, broker)
    known = {task.queue for task in app.tasks.values()}
    names = [name for text in queues for name in ([text] if text in known else _split(text))]
    if queues and not names:
        message = "-q names no queue; leave it out to work on all"
        raise click.UsageError(message)
    worker = app.worker(queues=names, pool=pool, concurrency=concurrency, drain_timeout=drain_timeout)
    signals = Signals((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))
    worker.start()
    _serve(worker, signals, burst=burst)
    code = _stop(worker, signals)
    app.close()
    _leave(code)


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _serve(worker: Worker, signals: Signals, *, burst: bool) -> None:
    while not signals.seen:
        signals.wait(_BURST_SECONDS if burst else 3600.0)
        if burst and worker.is_idle():
            return


def _stop(worker: Worker, signals: Signals) -> int:
    """Stop, telling what is going on at each signal; return the exit code."""
    started, force = time.monotonic(), 0

    def react() -> None:
        nonlocal force
        before, force = force, signals.force
        if force > _STOP:
            _leave(_forced(signals))
        if before == _STOP:  # no signal that asks for less has anything to add
            return
        if force == _STOP:
            _say("stopping: running jobs are asked to end, their messages go back")
            worker.hurry()
        elif force > before:
            _say(f"draining, at most {worker.drain_timeout:g} s; Ctrl-C again to stop now")
        else:
            left = max(0.0, worker.drain_timeout - (time.monotonic() - started))
            _say(f"draining: {worker.running} jobs here, {left:.0f} s left")

    handed_back = stop_hearing(worker, signals, react)
    if force >= _STOP:
        return _forced(signals)
    return HANDED_BACK if handed_back else 0


def _forced(signals: Signals) -> int:
    return FORCED_QUIT if signal.SIGQUIT in signals.seen else FORCED_INT


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # whoever read it is gone, as with 2>&1 | head
        click.echo(text, err=True)


def _leave(code: int) -> None:
    """End the process. Everything is settled and closed by now; only a thread that can't be stopped could linger."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, here or where it leads
            stream.flush()
    os._exit(code)
