"""Threads, locks and queues for the I/O of plugins: native also where gevent or eventlet has patched the process."""

from boost_core.native import Condition, Empty, Event, Lock, RLock, SimpleQueue, Thread, sleep

__all__ = ["Condition", "Empty", "Event", "Lock", "RLock", "SimpleQueue", "Thread", "sleep"]
