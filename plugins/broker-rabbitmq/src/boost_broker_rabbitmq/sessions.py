"""The connections that one process publishes over: as many as threads publish at once, kept for the next ones."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Iterator

import amqp
from boost_core.plugin import BrokerUnavailable, Closed
from boost_core.plugin.native import Lock

from boost_broker_rabbitmq.connection import OutOfReach
from boost_broker_rabbitmq.diagnosis import NAME, out_of_reach, reason_of
from boost_broker_rabbitmq.dialling import Dialler
from boost_broker_rabbitmq.session import Session

KEPT = 16
GOODBYE_SECONDS = 1.0


class Sessions:
    """Lends sessions to any thread. The lock is never held while the server is waited for."""

    def __init__(self, dialler: Dialler) -> None:
        self._dialler = dialler
        self._free: list[Session] = []
        self._all: weakref.WeakSet[Session] = weakref.WeakSet()
        self._lock = Lock()
        self._closed = False

    @contextlib.contextmanager
    def lend(self, until: float) -> Iterator[Session]:
        """Yield a session that works, a new one if need be. Raises ``BrokerUnavailable`` by ``until`` (monotonic)."""
        session = self._kept(until) or self._new(until)
        try:
            yield session
        except OutOfReach as error:
            raise out_of_reach(error) from error
        except (OSError, amqp.AMQPError) as error:
            wire = session.connection.wire
            raise BrokerUnavailable(NAME, f"{wire.host}:{wire.port} can't be used: {reason_of(error)}") from error
        finally:
            self._take_back(session)

    def _kept(self, until: float) -> Session | None:
        while True:
            with self._lock:
                if self._closed:
                    raise Closed(f"broker {NAME!r}")
                if not self._free:
                    return None
                session = self._free.pop()
            if session.lives(until):
                return session
            session.connection.wire.close()

    def _new(self, until: float) -> Session:
        session = Session(self._dialler.dial("publisher", until))
        with self._lock:
            self._all.add(session)
        return session

    def _take_back(self, session: Session) -> None:
        with self._lock:
            keep = session.usable and not self._closed and len(self._free) < KEPT
            if keep:
                self._free.append(session)
        if not keep:
            session.connection.end(GOODBYE_SECONDS if session.usable else 0.0)

    def close(self) -> None:
        """Close what is free now, and what is lent when it comes back; idempotent."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        until = time.monotonic() + GOODBYE_SECONDS
        for session in free:
            session.connection.end(max(0.0, until - time.monotonic()))

    def after_fork(self) -> None:
        """In a forked child: let go of the descriptors."""
        for session in list(self._all):
            session.connection.wire.abandon()
