"""The worker behind ``task.consume()``: in the background of a script, and in charge of its end."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from boost_core.worker.worker import Worker

if TYPE_CHECKING:
    from boost_core.app.app import App
    from boost_core.app.task import Task

log = logging.getLogger("boost.worker")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Consumer:
    """Keeps a script's process alive by a thread that isn't a daemon, until Ctrl-C or SIGTERM; then drains.

    The handlers add to what was there and never replace it: the script's own code still sees its
    KeyboardInterrupt, and a process that is told to terminate still ends by that signal, after the drain.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._worker = Worker(app, ())
        self._asked = threading.Event()
        self._times = 0
        self._fatal: int | None = None
        self._before: dict[int, Any] = {}
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._serve, name="boost-consume", daemon=False)
        self.tasks = self._worker.tasks

    @property
    def alive(self) -> bool:
        """True while it works, in the process that made it."""
        return self._pid == os.getpid() and not self._asked.is_set()

    def add(self, task: Task[..., Any]) -> None:
        """Work on a task; the first one starts the worker. Raises what keeps it from starting."""
        self._worker.add(task)
        if self._thread.ident is None:
            self._worker.start()
            self._install()
            self._thread.start()

    def _serve(self) -> None:
        while not self._asked.wait(3600.0):
            pass
        self._worker.stop()
        self._app.close()
        if self._fatal is not None:
            signal.pthread_kill(threading.main_thread().ident or 0, self._fatal)

    # --- signals -----------------------------------------------------------------------------------

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _SIGNALS:
            self._before[number] = signal.getsignal(number)
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._times += 1
        self._asked.set()
        if self._pid != os.getpid():
            self._hand_on(number, frame)
            return
        if number == signal.SIGTERM:
            self._fatal = number
            signal.signal(number, self._before[number])
        elif self._times > 1:
            self._hurry()
        if number == signal.SIGINT and threading.main_thread().is_alive():
            self._hand_on(number, frame)

    def _hurry(self) -> None:
        threading.Thread(target=self._worker.hurry, name="boost-hurry", daemon=True).start()

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        before: Callable[[int, FrameType | None], Any] | int | None = self._before.get(number)
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
