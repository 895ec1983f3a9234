"""The consuming connection of a subscription, and the thread that owns it."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Final, TypeVar

from boost_core.plugin import ConnectionLost
from boost_core.plugin.native import Event, Lock, Thread

from boost_broker_rabbitmq.connection import Connection
from boost_broker_rabbitmq.diagnosis import NAME, reason_of
from boost_broker_rabbitmq.wire import ready

T = TypeVar("T")

GOODBYE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.2
_TICKS: Final = 4  # a heartbeat's time is looked at so often

Action = Callable[[], None]


class Link:
    """Reads, writes and sends heartbeats in a native thread; other threads hand it actions, and wake it by a pipe."""

    def __init__(self, dial: Callable[[], Connection], timeout: float) -> None:
        self.connection: Connection
        self._dial = dial
        self._on_burst: Action
        self._on_death: Callable[[ConnectionLost], None]
        self._timeout = timeout
        self._actions: deque[Action] = deque()
        self._lock = Lock()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._signalled = False
        self._closing = False
        self._ended = Event()
        self._dialled = Event()
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._serve, name="boost-rabbitmq")

    # --- any thread ------------------------------------------------------------------------------

    def open(self, on_burst: Action, on_death: Callable[[ConnectionLost], None]) -> None:
        """Dial. Raises what dialling raised.

        ``on_burst`` is called in the link's thread after whatever arrived together was dealt with; ``on_death`` once,
        with the reason, when the connection ended other than by ``close``.
        """
        self._on_burst, self._on_death = on_burst, on_death
        self._thread.start()
        self._dialled.wait()
        if self._failure is not None:
            raise self._failure

    def post(self, action: Action) -> None:
        """Have an action done in the link's thread, in the calls' order; forgotten where the connection has ended."""
        with self._lock:
            if self._ended.is_set():
                return
            self._actions.append(action)
            if not self._signalled:
                self._signalled = True
                with contextlib.suppress(BlockingIOError):
                    os.write(self._writer, b"!")

    def ask(self, question: Callable[[], T], seconds: float = math.inf) -> T:
        """Return the answer to a question that is asked in the link's thread, or raise what it raised.

        A connection that has none after ``seconds`` is cut.
        """
        until = time.monotonic() + seconds
        answers: list[T] = []
        errors: list[BaseException] = []
        answered = Event()

        def act() -> None:
            try:
                answers.append(question())
            except OSError as error:  # such as a time-out: the connection is good for nothing any more
                errors.append(error)
                raise
            except Exception as error:
                errors.append(error)
            finally:
                answered.set()

        self.post(act)
        while not answered.wait(_LOOK_SECONDS):
            if time.monotonic() > until:
                self.connection.wire.cut()
            if self._ended.is_set():
                raise ConnectionLost(NAME, "the connection was lost while the server was asked")
        if errors:
            raise errors[0]
        return answers[0]

    def close(self) -> None:
        """Do what was posted, say goodbye and end; idempotent. A server that hangs isn't waited for any longer."""
        self.post(self._finish)
        if self._thread.is_alive() and not self._ended.wait(GOODBYE_SECONDS):
            self.connection.wire.cut()
            self._ended.wait(GOODBYE_SECONDS)

    def after_fork(self) -> None:
        """In a forked child: let go of the descriptors."""
        if hasattr(self, "connection"):
            self.connection.wire.abandon()
        if not self._ended.is_set():
            os.close(self._reader)
            os.close(self._writer)

    # --- the link's thread -----------------------------------------------------------------------------

    def _finish(self) -> None:
        self._closing = True

    def _serve(self) -> None:
        try:
            self.connection = self._dial()
        except BaseException as error:
            self._failure = error
            self._end()
            return
        finally:
            self._dialled.set()
        lost: BaseException | None = None
        try:
            self._run(self.connection)
        except Exception as error:  # whatever it is, this connection carries nothing any more
            lost = error
        self.connection.end(GOODBYE_SECONDS if lost is None else 0.0)
        self._end()
        if lost is not None:
            host = f"{self.connection.wire.host}:{self.connection.wire.port}"
            self._on_death(ConnectionLost(NAME, f"the connection to {host} was lost: {reason_of(lost)}"))

    def _run(self, connection: Connection) -> None:
        wire = connection.wire
        beat = connection.heartbeat / _TICKS
        patience = min(self._timeout, 2 * connection.heartbeat)
        next_beat = 0.0
        while not self._closing:
            found = ready([wire.fileno(), self._reader], [], next_beat - time.monotonic())
            wire.until = time.monotonic() + patience
            if self._reader in found:
                self._act(connection)
            connection.read_all()  # also where nothing is new: an action may have left frames behind its answer
            self._on_burst()
            if time.monotonic() >= next_beat:
                connection.heartbeat_tick()
                next_beat = time.monotonic() + beat

    def _act(self, connection: Connection) -> None:
        """Do what was posted; what it writes goes out together."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 64)
        with self._lock:  # after the read: a byte that comes from here on is for another turn
            self._signalled = False
            actions, self._actions = self._actions, deque()
        wire = connection.wire
        wire.corked = True
        try:
            for action in actions:
                action()
        finally:
            wire.corked = False
        wire.flush()

    def _end(self) -> None:
        with self._lock:
            self._ended.set()
            os.close(self._reader)
            os.close(self._writer)
            self._actions.clear()
