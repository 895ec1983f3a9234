"""Threads and locks of the operating system, also where gevent or eventlet made ``threading`` mean greenlets.

Both replace attributes of modules when they patch a process, before or after this module is imported. So the
primitives here come from copies of the interpreter's own modules that nobody else has, and the classes above them
are built on nothing else. Which world a process lives in is asked only when a thread is started: where nobody has
patched, that is ``threading``'s own, known to ``threading.enumerate()``, debuggers and log lines.

Waiting here blocks the thread, and with it every greenlet of it: for the threads of brokers, not for users' code. Never
switch greenlets while holding one of these locks.
"""

from __future__ import annotations

import _socket
import _thread
import atexit
import contextlib
import importlib.util
import os
import select
import sys
import threading
import time
from _queue import Empty, SimpleQueue
from collections import deque
from collections.abc import Callable, Sequence
from types import BuiltinFunctionType
from typing import TYPE_CHECKING, Any

__all__ = [
    "Condition",
    "Empty",
    "Event",
    "Lock",
    "RLock",
    "SimpleQueue",
    "Thread",
    "has_patched_select",
    "own_socket",
    "poll",
    "sleep",
    "wait_for_input",
]


def _own_copy(name: str) -> Any:
    """Return a fresh copy of a module that is written in C, as the interpreter makes it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_PRIMITIVES = _own_copy("_thread")
_SELECT = _own_copy("select")
_THIS_THREAD = _PRIMITIVES._local()

if TYPE_CHECKING:
    from threading import Lock, RLock
    from time import sleep
else:
    Lock = _PRIMITIVES.allocate_lock
    RLock = _PRIMITIVES.RLock
    sleep = _own_copy("time").sleep


def poll() -> select.poll:
    """Return what waits for descriptors, as ``select.poll()`` does; not on Windows."""
    polling: select.poll = _SELECT.poll()
    return polling


class Condition:
    """``threading.Condition`` for native threads, on an ``RLock`` of its own or the lock given."""

    def __init__(self, lock: Lock | RLock | None = None) -> None:
        self._lock: Any = RLock() if lock is None else lock
        self._waiters: deque[Lock] = deque()
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self) -> bool:
        return bool(self._lock.__enter__())

    def __exit__(self, *error: object) -> None:
        self._lock.__exit__(*error)

    def wait(self, timeout: float | None = None) -> bool:
        """Let go of the lock until notified, and take it back; return False when ``timeout`` seconds passed instead."""
        waiter = Lock()
        waiter.acquire()
        self._waiters.append(waiter)
        held = self._let_go()
        notified = False
        try:
            notified = _acquire(waiter, timeout)
        finally:
            self._take_back(held)
            if not notified:
                with contextlib.suppress(ValueError):  # a notification that came too late took it out
                    self._waiters.remove(waiter)
        return notified

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until ``predicate()`` is true; return its last value, which is false after ``timeout`` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        result = predicate()
        while not result:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Wake up to ``n`` of those that wait. The lock must be held."""
        for _ in range(n):
            try:
                waiter = self._waiters.popleft()
            except IndexError:  # nobody waits any more: a signal handler may have notified in between
                return
            waiter.release()

    def notify_all(self) -> None:
        """Wake all that wait. The lock must be held."""
        self.notify(len(self._waiters))

    def _let_go(self) -> Any:
        if hasattr(self._lock, "_release_save"):
            return self._lock._release_save()
        return self._lock.release()

    def _take_back(self, held: Any) -> None:
        if hasattr(self._lock, "_acquire_restore"):
            self._lock._acquire_restore(held)
        else:
            self._lock.acquire()


class Event:
    """``threading.Event`` for native threads; ``set`` may be called from a signal handler."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._is_set = False

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and let all that wait go on."""
        with self._changed:
            self._is_set = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Have later waits wait again."""
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        """Return True once it is set, False after ``timeout`` seconds."""
        with self._changed:
            return self._is_set or self._changed.wait(timeout) or self._is_set


class Thread:
    """A native thread that runs ``target(*args)``: a daemon unless told otherwise, else waited for at exit."""

    def __init__(
        self, target: Callable[..., object], args: Sequence[Any] = (), *, name: str = "boost", daemon: bool = True
    ) -> None:
        self.name = name
        self._target = target
        self._args = args
        self._daemon = daemon
        self._life: threading.Thread | _BareThread | None = None

    def start(self) -> None:
        """Run. Raises ``RuntimeError`` when called a second time, or when the system has no room for a thread."""
        if self._life is not None:
            message = f"thread {self.name!r} was started before; make a new one"
            raise RuntimeError(message)
        kind = _BareThread if _is_patched() else threading.Thread
        self._life = kind(target=self._target, args=self._args, name=self.name, daemon=self._daemon)
        self._life.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait until it has ended, ``timeout`` seconds at most; ask ``is_alive`` which it was."""
        if self._life is None:
            message = f"thread {self.name!r} was never started"
            raise RuntimeError(message)
        self._life.join(timeout)

    def is_alive(self) -> bool:
        """Return whether it was started and hasn't ended; False in a forked child, where it doesn't run."""
        return self._life is not None and self._life.is_alive()

    @property
    def ident(self) -> int | None:
        """The system's number of the thread; None before it is started."""
        return None if self._life is None else self._life.ident


class _BareThread:
    """A thread of the interpreter that nobody's ``threading`` has a hand in."""

    def __init__(self, *, target: Callable[..., object], args: Sequence[Any], name: str, daemon: bool) -> None:
        self.name = name
        self.ident: int | None = None
        self._target = target
        self._args = args
        self._daemon = daemon
        self._running = Lock()
        self._process = 0

    def start(self) -> None:
        self._process = os.getpid()
        self._running.acquire()
        self.ident = _PRIMITIVES.start_new_thread(self._serve, ())
        if not self._daemon:
            atexit.register(self.join)

    def _serve(self) -> None:
        _THIS_THREAD.is_native = True
        try:
            self._target(*self._args)
        except BaseException:  # SystemExit is an ordinary end to the hook
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self)))
        finally:
            _leave_gevent()
            self._running.release()

    def is_alive(self) -> bool:
        return self._process == os.getpid() and self._running.locked()

    def join(self, timeout: float | None = None) -> None:
        if self.ident == _PRIMITIVES.get_ident():
            message = "cannot join current thread"
            raise RuntimeError(message)
        if self.is_alive() and _acquire(self._running, timeout):
            self._running.release()


def own_socket(connected: Any) -> Any:
    """Return a connected socket as the operating system's own, that any thread may use; unpatched, it is that already.

    gevent's belong to the thread that made them. What is returned lacks ``makefile``; the one given is used up.
    """
    if not _is_patched():
        return connected
    seconds = connected.gettimeout()
    plain = _socket.socket(fileno=connected.detach())
    plain.settimeout(seconds)
    return plain


def has_patched_select() -> bool:
    """Return whether gevent or eventlet has replaced how this process waits for descriptors."""
    return not isinstance(getattr(select, "poll", None), BuiltinFunctionType)


def wait_for_input(descriptor: int, seconds: float) -> None:
    """Wait for a descriptor by what is patched, so that greenlets go on; unlike all else here."""
    if hasattr(select, "poll"):
        polling = select.poll()
        polling.register(descriptor, select.POLLIN)
        polling.poll(seconds * 1000)
    else:  # eventlet takes it away
        select.select([descriptor], [], [], seconds)


def has_greenlets() -> bool:
    """Return whether greenlets stand still while this thread waits natively; those made here have none."""
    return _is_patched() and not hasattr(_THIS_THREAD, "is_native")


def _is_patched() -> bool:
    """Return whether somebody has replaced how this process starts threads."""
    return getattr(_thread.start_new_thread, "__self__", None) is not _thread


def _leave_gevent() -> None:
    """Close the event loop that gevent gave this thread if anything here waited with it: the thread's end doesn't."""
    local = sys.modules.get("gevent._hub_local")
    hub = None if local is None else local.get_hub_if_exists()  # one made only to be closed could wait for an import
    if hub is not None:
        hub.destroy(destroy_loop=True)


def _acquire(lock: Lock, timeout: float | None) -> bool:
    if timeout is None:
        return lock.acquire()
    return lock.acquire(timeout=min(max(timeout, 0.0), _PRIMITIVES.TIMEOUT_MAX))
