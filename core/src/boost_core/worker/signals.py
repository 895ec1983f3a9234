"""How a worker's process hears signals, and goes on hearing them while it stops."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import TYPE_CHECKING, Any

from boost_core.forks import on_fork

if TYPE_CHECKING:
    from boost_core.worker.worker import Worker

Then = Callable[["Signals", int, FrameType | None], None]

_CHECK_SECONDS = 0.05


class Signals:
    """Hears signals, from when it is made on. The handler writes one byte to a pipe, then calls ``then`` if given.

    Where that is missing, the process is the worker's own, and it is its main thread that waits: then the interpreter
    is told of the pipe as well, since a handler in Python doesn't run in a thread that is about to block.

    Only the main thread can make one. A forked child has what there was before: it is no worker, and whoever
    started it ends it by these signals.
    """

    def __init__(self, numbers: Iterable[int], then: Then | None = None) -> None:
        self.seen: list[int] = []
        self.before: dict[int, Any] = {}
        self._then = then
        self._pid = os.getpid()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        for number in numbers:
            self.before[number] = signal.getsignal(number)
            signal.signal(number, self._hear)
        if then is None:
            signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        on_fork(self)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._pid != os.getpid():  # a child so young that it hasn't put its handlers back
            self.restore()
            os.kill(os.getpid(), number)
            return
        self.seen.append(number)
        self.wake()
        if self._then is not None:
            self._then(self, number, frame)

    @property
    def force(self) -> int:
        """How hard it is told to stop: SIGTERM never more than a drain, SIGQUIT as two Ctrl-C."""
        return sum({signal.SIGINT: 1, signal.SIGQUIT: 2}.get(signal.Signals(number), 0) for number in list(self.seen))

    def wait(self, seconds: float) -> None:
        """Return when a signal comes, at the latest after ``seconds``."""
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        if poll.poll(seconds * 1000):
            os.read(self._read, 64)

    def wake(self) -> None:
        """Let a ``wait`` return. Any thread, and signal handlers."""
        with contextlib.suppress(BlockingIOError):  # full: whoever reads is awake
            os.write(self._write, b".")

    def restore(self) -> None:
        """Put back the handlers that were there before, where nobody else has put one since. Main thread."""
        for number, before in self.before.items():
            if signal.getsignal(number) == self._hear:
                signal.signal(number, before)
        if self._then is None:
            signal.set_wakeup_fd(-1)

    def close(self) -> None:
        """Hear nothing more, and let go of the pipe. Main thread."""
        self.restore()
        os.close(self._read)
        os.close(self._write)

    def after_fork(self) -> None:
        """In a forked child: leave the parent's pipe alone."""
        self.close()


def stop_hearing(worker: Worker, signals: Signals, react: Callable[[], None]) -> int:
    """Stop in a thread of its own; ``react`` is called here at each signal, those that are there already included.

    Returns how many jobs were handed back. Raises what keeps the worker from stopping.
    """
    handed_back: list[int] = []
    errors: list[BaseException] = []

    def stop() -> None:
        try:
            handed_back.append(worker.stop())
        except BaseException as error:
            errors.append(error)

    stopping = threading.Thread(target=stop, name="boost-stop", daemon=True)
    stopping.start()
    told = 0
    while stopping.is_alive():
        if len(signals.seen) > told:
            told = len(signals.seen)
            react()
        signals.wait(_CHECK_SECONDS)
    if errors:
        raise errors[0]
    return handed_back[0]
