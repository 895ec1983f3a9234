"""What other threads have the reader's thread do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from boost_core.plugin.native import Empty, Event, SimpleQueue


@attrs.define(eq=False)
class _Errand:
    call: Callable[[], Any]
    done: Event = attrs.field(factory=Event)
    result: Any = None


class Errands:
    """Calls that wait for one thread to make them."""

    def __init__(self) -> None:
        self._waiting: SimpleQueue[_Errand] = SimpleQueue()
        self.over = False

    def ask(self, call: Callable[[], Any], timeout: float) -> Any:
        """Return what ``call`` returned in the other thread; None if that took too long, or the thread has ended."""
        errand = _Errand(call)
        self._waiting.put(errand)
        if not self.over:
            errand.done.wait(timeout)
        return errand.result

    def run(self) -> None:
        """Make the calls that wait. In the one thread."""
        while True:
            try:
                errand = self._waiting.get_nowait()
            except Empty:
                return
            try:
                errand.result = errand.call()
            finally:
                errand.done.set()

    def end(self) -> None:
        """Make the last calls; later ones are not made."""
        self.over = True
        self.run()
