"""Native threads and what they wait with, in a process as it is and in one where everything was patched away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable

import pytest
from boost_core.plugin import native

PATCH = """
import _thread, queue, select, sys, threading, time

STARTS = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"

def replaced(original):
    def patched(*given, **more):
        if sys._getframe(1).f_globals["__name__"] in ("__main__", "boost_core.native"):
            raise AssertionError("what was patched was used")
        return original(*given, **more)  # imports and forks go on as ever
    return patched

def patch():
    for module, names in {
        _thread: ("start_new_thread", "allocate_lock", "get_ident", "RLock"),
        threading: (STARTS, "_allocate_lock", "get_ident", "Lock", "RLock", "Event", "Condition", "Thread"),
        queue: ("SimpleQueue",),
        select: ("poll",),
        time: ("sleep",),
    }.items():
        for name in names:
            setattr(module, name, replaced(getattr(module, name)))
"""
"""Replaces what gevent and eventlet replace, by what fails when code of ours uses it."""

WORLDS = {
    "plain": "from boost_core.plugin.native import *",
    "patched before the import": PATCH + "patch()\nfrom boost_core.plugin.native import *",
    "patched after the import": PATCH + "from boost_core.plugin.native import *\npatch()",
}
in_every_world = pytest.mark.parametrize("world", WORLDS)


def said(world: str, code: str) -> tuple[str, str]:
    """Run code in a process of that world; return what it printed and reported."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", f"import os\n{WORLDS[world]}\n{textwrap.dedent(code)}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


# --- threads, in every world ---------------------------------------------------------------------------------


@in_every_world
def test_a_thread_runs_beside_its_starter(world: str) -> None:
    """It has a name, and from its start on a number; it is alive until its target returned, and join waits for that."""
    code = """
    go_on, told = Event(), SimpleQueue()
    def target(*args):
        told.put(args)
        go_on.wait(20)
    thread = Thread(target, (1, "two"), name="io")
    print(thread.name, thread.ident, thread.is_alive())
    thread.start()
    print(told.get(timeout=20), type(thread.ident), thread.is_alive())
    thread.join(0.01)
    print(thread.is_alive())
    go_on.set()
    thread.join()
    thread.join(0)
    print(thread.is_alive())
    """

    assert said(world, code) == ("io None False\n(1, 'two') <class 'int'> True\nTrue\nFalse\n", "")


@in_every_world
def test_threads_wake_each_other(world: str) -> None:
    """Locks, conditions, events, queues and sleep work between threads, made before or after a patch."""
    code = """
    requests, answers, lock, changed = SimpleQueue(), SimpleQueue(), Lock(), Condition()
    state = []
    def answer():
        while (number := requests.get(timeout=20)) is not None:
            sleep(0.001)
            with lock:
                answers.put(number * 2)
        with changed:
            state.append("done")
            changed.notify_all()
    Thread(answer, name="answer").start()
    for number in (1, 2, 3):
        requests.put(number)
        print(answers.get(timeout=20))
    requests.put(None)
    with changed:
        print(changed.wait_for(lambda: state, 20))
    try:
        answers.get_nowait()
    except Empty:
        print("empty")
    """

    assert said(world, code) == ("2\n4\n6\n['done']\nempty\n", "")


@in_every_world
def test_descriptors_are_polled(world: str) -> None:
    """A poll waits for another thread to write, and ends with its timeout where nobody does."""
    code = """
    import select
    reader, writer = os.pipe()
    waiting = poll()
    waiting.register(reader, select.POLLIN)
    print(waiting.poll(1))
    Thread(os.write, (writer, b"x"), name="write").start()
    print(waiting.poll(20_000) == [(reader, select.POLLIN)])
    """

    assert said(world, code) == ("[]\nTrue\n", "")


@in_every_world
def test_a_forked_child_has_threads_of_its_own(world: str) -> None:
    """In a forked child the parent's threads are over, and joining them returns; new ones run."""
    code = """
    go_on, told = Event(), SimpleQueue()
    parents = Thread(go_on.wait, (20,), name="parents", daemon=False)
    parents.start()
    child = os.fork()
    if child == 0:
        parents.join()
        thread = Thread(told.put, ("hello",), name="own")
        thread.start()
        thread.join()
        print(told.get(timeout=20), thread.is_alive(), parents.is_alive(), flush=True)
        os._exit(0)
    print(os.waitpid(child, 0)[1], parents.is_alive())
    go_on.set()
    """

    assert said(world, code) == ("hello False False\n0 True\n", "")


@in_every_world
def test_what_a_thread_raises_is_reported(world: str) -> None:
    """An error that a target lets through is reported with the thread's name; SystemExit just ends the thread."""
    code = """
    def fail():
        raise ValueError("no such partition")
    for target in (fail, exit):
        thread = Thread(target, name="poll-7")
        thread.start()
        thread.join()
    """

    printed, reported = said(world, code)

    assert printed == ""
    assert reported.startswith("Exception in thread poll-7:\nTraceback")
    assert reported.endswith("ValueError: no such partition\n")
    assert reported.count("Exception") == 1


@in_every_world
def test_only_daemons_are_left_behind_at_exit(world: str) -> None:
    """The process waits for a thread that is no daemon, and not for one that is."""
    code = """
    ended = Event()
    def end():
        sleep(0.1)
        print("flushed", flush=True)
    Thread(ended.wait, (60,), name="endless").start()
    Thread(end, name="flush", daemon=False).start()
    """

    assert said(world, code) == ("flushed\n", "")


@in_every_world
def test_threads_are_started_once_and_joined_by_others(world: str) -> None:
    """A second start, a join before the start and a join of oneself are errors that say so."""
    code = """
    told = SimpleQueue()
    def join_oneself():
        try:
            thread.join()
        except RuntimeError as error:
            told.put(error)
    thread = Thread(join_oneself, name="io")
    for wrong in (thread.join, thread.start, thread.start):
        try:
            wrong()
        except RuntimeError as error:
            print(error)
    print(told.get(timeout=20))
    """

    assert said(world, code) == (
        "thread 'io' was never started\nthread 'io' was started before; make a new one\ncannot join current thread\n",
        "",
    )


def test_what_was_patched_would_be_noticed() -> None:
    """The patched worlds above fail whoever uses what was replaced; so they can prove that nothing was."""
    code = "import threading\ntry:\n    threading.Event()\nexcept AssertionError as error:\n    print(error)"

    assert said("patched after the import", code) == ("what was patched was used\n", "")


def test_where_nobody_patched_threads_are_ordinary() -> None:
    """Such a thread is one of ``threading``: enumerated, and known by its name to itself."""
    told: native.SimpleQueue[str] = native.SimpleQueue()
    go_on = native.Event()

    def target() -> None:
        told.put(threading.current_thread().name)
        go_on.wait(20)

    thread = native.Thread(target, name="known")
    thread.start()

    assert told.get(timeout=20) == "known"
    assert thread.ident in [one.ident for one in threading.enumerate()]
    go_on.set()
    thread.join()


# --- conditions and events -----------------------------------------------------------------------------------


def waiting(condition: native.Condition, count: int, wait: Callable[[], object]) -> native.SimpleQueue[object]:
    """Have so many threads wait; return, once they do, the queue that each puts the end of its wait into."""
    ends: native.SimpleQueue[object] = native.SimpleQueue()
    entered: native.SimpleQueue[None] = native.SimpleQueue()

    def run() -> None:
        with condition:
            entered.put(None)
            ends.put(wait())

    for _ in range(count):
        native.Thread(run, name="waiter").start()
        entered.get(timeout=20)
    with condition:  # which is free once the last of them waits
        return ends


@pytest.mark.parametrize("lock", [native.Lock, native.RLock, lambda: None], ids=["Lock", "RLock", "own"])
def test_notify_wakes_as_many_as_it_says(lock: Callable[[], native.Lock | None]) -> None:
    """Of those that wait, ``notify`` wakes one, ``notify(n)`` so many, ``notify_all`` the rest; none is no error."""
    condition = native.Condition(lock())
    ends = waiting(condition, 6, lambda: condition.wait(20))

    with condition:
        condition.notify()
    assert ends.get(timeout=20) is True
    with condition:
        condition.notify(2)
    assert [ends.get(timeout=20) for _ in range(2)] == [True, True]
    assert ends.empty()
    with condition:
        condition.notify_all()
    assert [ends.get(timeout=20) for _ in range(3)] == [True, True, True]
    with condition:
        condition.notify()


def test_wait_gives_a_lock_back_that_was_taken_twice() -> None:
    """A wait lets go of a re-entrant lock however often it was taken, and takes it as often again."""
    condition = native.Condition()

    def wait() -> object:
        with condition:
            return condition.wait(20)

    ends = waiting(condition, 1, wait)
    with condition:
        condition.notify()

    assert ends.get(timeout=20) is True
    assert condition.acquire(timeout=20)
    condition.release()


def test_wait_ends_with_its_timeout() -> None:
    """Nobody notified: wait returns False, and who gave up is notified no more."""
    condition = native.Condition()
    with condition:
        assert condition.wait(0) is False
        assert condition.wait(-1) is False
        assert condition.wait(0.01) is False
    ends = waiting(condition, 1, lambda: condition.wait(20))

    with condition:
        condition.notify()

    assert ends.get(timeout=20) is True


def test_wait_for_returns_what_it_waited_for() -> None:
    """The predicate's value is returned as soon as it is true, and what it last was after the timeout."""
    condition = native.Condition()
    state: list[int] = []
    ends = waiting(condition, 1, lambda: condition.wait_for(lambda: len(state) >= 2 and state, 20))

    for number in (1, 2):
        with condition:
            state.append(number)
            condition.notify_all()

    assert ends.get(timeout=20) == [1, 2]
    with condition:
        assert condition.wait_for(lambda: state, 0) == [1, 2]
        assert condition.wait_for(list, 0.01) == []


def test_an_event_stays_set_until_cleared() -> None:
    """Set wakes all that wait, and later waits return at once; after clear they wait again."""
    event, ends = native.Event(), native.SimpleQueue[bool]()
    threads = [native.Thread(lambda: ends.put(event.wait(20)), name="waiter") for _ in range(3)]
    for thread in threads:
        thread.start()

    event.set()

    assert [ends.get(timeout=20) for _ in threads] == [True, True, True]
    assert event.is_set()
    assert event.wait() is True
    event.clear()
    assert not event.is_set()
    assert event.wait(0) is False
    assert event.wait(0.01) is False


def test_a_signal_handler_may_set_what_the_interrupted_code_sets() -> None:
    """The handler runs in the middle of ``set``, takes the same lock again, and ends."""
    event, handled = native.Event(), []

    def handle(*_: object) -> None:
        event.set()
        handled.append(1)

    before = signal.signal(signal.SIGVTALRM, handle)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.001, 0.001)
    try:
        while len(handled) < 50:
            event.set()
            event.clear()
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def test_waits_may_be_longer_than_the_system_counts() -> None:
    """A timeout beyond what locks can count is the longest one there is."""
    event = native.Event()
    threading.Timer(0.01, event.set).start()

    assert event.wait(1e300)


def test_sleep_takes_its_time() -> None:
    """Sleep returns after the seconds given, not before."""
    begun = time.monotonic()

    native.sleep(0.02)

    assert time.monotonic() - begun >= 0.02
