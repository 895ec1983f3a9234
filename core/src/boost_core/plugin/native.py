"""Threads, locks and queues for the I/O of plugins: native also where gevent or eventlet has patched the process.

What is patched may be used in a native thread all the same: a client's sockets, ``time.sleep``, ``threading.local``.
But gevent ties a socket to the thread that made it ("Cannot switch to a different thread"), so dial in the thread that
uses the connection; and a patched lock that native threads and greenlets fight for may leave one of them waiting for
ever.
"""

from boost_core.native import (
    Condition,
    Empty,
    Event,
    Lock,
    RLock,
    SimpleQueue,
    Thread,
    has_patched_select,
    own_socket,
    poll,
    sleep,
    wait_for_input,
)

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
