"""The worker behind ``task.consume()``: in the background of a script, and in charge of its end."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from boost_core.errors import BoostError
from boost_core.worker.mainend import wait_at_end
from boost_core.worker.signals import Signals
from boost_core.worker.worker import Worker

if TYPE_CHECKING:
    from boost_core.app.app import App
    from boost_core.app.task import Task

log = logging.getLogger("boost.worker")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SECOND, _THIRD = 2, 3


class Consumer:
    """Keeps a script's process alive once its main code has ended, until Ctrl-C or SIGTERM; then drains.

    The handlers add to what was there and never replace it: the script's own code still sees its
    KeyboardInterrupt, and a process that is told to terminate still ends by that signal, after the drain. A second
    Ctrl-C asks running jobs to end, a third one ends the process there and then.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._worker = Worker(app, ())
        self._signals: Signals | None = None
        self._asked = threading.Event()
        self._over = False
        self._main_is_over = False
        self._pid = os.getpid()
        self.tasks = self._worker.tasks

    @property
    def alive(self) -> bool:
        """True while it works, in the process that made it."""
        return self._signals is not None and not self._signals.seen and self._pid == os.getpid()

    def add(self, task: Task[..., Any]) -> None:
        """Work on a task; the first one starts the worker. Raises what keeps it from starting."""
        if self._signals is None and threading.current_thread() is not threading.main_thread():
            message = (
                "consume() hears Ctrl-C and SIGTERM to drain at the end, which only the main thread can.\n"
                "  Call it there, or use a worker: with app.worker(task): ..."
            )
            raise BoostError(message)
        self._worker.add(task)
        if self._signals is None:
            self._signals = self._start()

    def _start(self) -> Signals:
        signals = Signals(_SIGNALS, self._hand_on)
        try:
            self._worker.start()
        except BaseException:
            signals.close()
            raise
        threading.Thread(target=self._hear, args=(signals,), name="boost-signals", daemon=True).start()
        serving = threading.Thread(target=self._serve, args=(signals,), name="boost-consume", daemon=False)
        serving.start()
        wait_at_end(lambda: self._outlive_main(serving))
        return signals

    def _outlive_main(self, serving: threading.Thread) -> None:
        if self._pid == os.getpid():  # a forked child ends when its own code does
            self._main_is_over = True
            serving.join()

    def _serve(self, signals: Signals) -> None:
        self._asked.wait()
        try:
            self._worker.stop()
            self._app.close()
        except BoostError as error:
            log.error("the worker could not stop cleanly: %s", error)
        finally:
            self._over = True
            signals.wake()
            for number in signals.seen:
                if number == signal.SIGTERM or signals.before[number] == signal.SIG_DFL:
                    signal.pthread_kill(threading.main_thread().ident or 0, number)
                    break

    def _hear(self, signals: Signals) -> None:
        told = 0
        while not self._over:
            signals.wait(3600.0)
            if len(signals.seen) > told:
                told = len(signals.seen)
                self._react(signals)
                self._asked.set()

    def _react(self, signals: Signals) -> None:
        if signals.force == _SECOND:
            _say("stopping: running jobs are asked to end, their messages go back")
            self._worker.hurry()
        elif self._worker.running:
            more = "; Ctrl-C again to stop now" if signals.force == 1 else ""
            _say(f"draining: {self._worker.running} jobs here, at most {self._worker.drain_timeout:g} s{more}")

    def _hand_on(self, signals: Signals, number: int, frame: FrameType | None) -> None:
        """Do what the script would have done on a signal: at once for Ctrl-C, after the drain for SIGTERM."""
        before = signals.before[number]
        if self._over:
            signals.restore()
            if before == signal.SIG_DFL:
                os.kill(os.getpid(), number)
            elif callable(before):
                before(number, frame)
        elif signals.force >= _THIRD:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif number == signal.SIGINT and callable(before) and not self._main_is_over:
            before(number, frame)


def _say(text: str) -> None:
    """Tell whoever sent a signal, who may have no logging to read."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # whoever reads it is gone, or there was nobody
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
