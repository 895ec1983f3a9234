"""``boost worker``: work on the tasks of a target until told to stop."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Final

import click

from boost_core.cli.parameters import seconds
from boost_core.cli.target import load_app

if TYPE_CHECKING:
    from boost_core.worker.worker import Worker

HANDED_BACK: Final = 75
FORCED_INT: Final = 130
FORCED_QUIT: Final = 131
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
    names = [name for text in queues for name in text.split(",") if name]
    worker = app.worker(queues=names, pool=pool, concurrency=concurrency, drain_timeout=drain_timeout)
    signals = Signals()
    worker.start()
    _serve(worker, signals, burst=burst)
    handed_back = _stop(worker, signals)
    app.close()
    _leave(signals.code or (HANDED_BACK if handed_back else 0))


def _serve(worker: Worker, signals: Signals, *, burst: bool) -> None:
    while not signals.seen:
        signals.wait(_BURST_SECONDS if burst else 3600.0)
        if burst and worker.is_idle():
            return


def _stop(worker: Worker, signals: Signals) -> int:
    """Stop in a thread of its own, so that this one goes on hearing signals."""
    handed_back: list[int] = []
    stopping = threading.Thread(target=lambda: handed_back.append(worker.stop()), name="boost-stop", daemon=True)
    stopping.start()
    started, told = time.monotonic(), 0
    while stopping.is_alive():
        signals.wait(0.05)
        if len(signals.seen) > told:
            told = len(signals.seen)
            _react(worker, signals, time.monotonic() - started)
    return handed_back[0] if handed_back else 0


def _react(worker: Worker, signals: Signals, seconds: float) -> None:
    if signals.force == 1:
        click.echo(f"draining, at most {worker.drain_timeout:g} s; Ctrl-C again to stop now", err=True)
    elif signals.force == 2:  # noqa: PLR2004 - the second Ctrl-C
        click.echo("stopping: running jobs are asked to end, their messages go back", err=True)
        signals.code = FORCED_QUIT if signals.seen[-1] == signal.SIGQUIT else FORCED_INT
        worker.hurry()
    elif signals.force > 2:  # noqa: PLR2004 - the third one
        _leave(signals.code or FORCED_INT)
    else:
        left = max(0.0, worker.drain_timeout - seconds)
        click.echo(f"draining: {worker.running} jobs here, {left:.0f} s left", err=True)


def _leave(code: int) -> None:
    """End the process. Everything is settled and closed by now; only a thread that can't be stopped could linger."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


class Signals:
    """Hears SIGTERM, SIGINT and SIGQUIT. The handler writes one byte to a pipe and does nothing else."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.code = 0
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._hear)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        self.seen.append(number)
        try:
            os.write(self._write, b".")
        except BlockingIOError:  # full: whoever reads is awake
            return

    @property
    def force(self) -> int:
        """How hard it is told to stop: SIGTERM never more than a drain, SIGQUIT as two Ctrl-C."""
        return sum({signal.SIGINT: 1, signal.SIGQUIT: 2}.get(signal.Signals(number), 0) for number in self.seen)

    def wait(self, seconds: float) -> None:
        """Return when a signal comes, at the latest after ``seconds``."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if poll.poll(seconds * 1000):
            os.read(self._read, 64)
