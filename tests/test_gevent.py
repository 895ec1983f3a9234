"""Native threads in processes that gevent has patched whole, before or after boost was imported."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PATCH = "from gevent import monkey; monkey.patch_all()"
IMPORT = "from boost_core.plugin.native import *"
ORDERS = {
    "patched before the import": f"{PATCH}\n{IMPORT}",
    "patched after the import": f"{IMPORT}\n{PATCH}",
}
in_every_order = pytest.mark.parametrize("order", ORDERS)


def said(order: str, code: str, *arguments: str) -> str:
    """Run code in a patched process; return what it printed."""
    command = [
        sys.executable,
        "-c",
        f"{ORDERS[order]}\nimport os, threading, gevent\n{textwrap.dedent(code)}",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@in_every_order
def test_a_native_thread_goes_on_while_the_hub_computes(order: str) -> None:
    """The main greenlet computes and never yields: the native thread ticks on, another greenlet doesn't even start."""
    code = """
    import time
    ticks, ended = [], Event()
    def tick():
        for number in range(200):
            ticks.append(number)
            sleep(0.01)
        ended.set()
    Thread(tick, name="tick").start()
    gevent.spawn(ticks.append, "green")
    last = time.monotonic() + 40
    while not ended.is_set() and time.monotonic() < last:
        pass
    print(ticks == list(range(200)))
    gevent.sleep(0)
    print(ticks[-1])
    """

    assert said(order, code) == "True\ngreen\n"


@in_every_order
def test_native_waits_do_not_switch_greenlets(order: str) -> None:
    """Events, conditions, queues, locks, polls, sleeps and joins wake across threads; meanwhile no greenlet runs."""
    code = """
    switched = []
    gevent.spawn(switched.append, "switched")
    event, changed, asked, answered, lock = Event(), Condition(), SimpleQueue(), SimpleQueue(), Lock()
    state, (reader, writer), polled = [], os.pipe(), poll()
    polled.register(reader)
    def serve():
        event.wait(20)
        with changed:
            state.append(1)
            changed.notify_all()
        answered.put(asked.get(timeout=20))
        os.write(writer, b"x")
        sleep(0.05)
        lock.release()
    lock.acquire()
    thread = Thread(serve, name="serve")
    thread.start()
    event.set()
    with changed:
        print(changed.wait_for(lambda: state, 20))
    asked.put("echo")
    print(answered.get(timeout=20), len(polled.poll(20_000)), lock.acquire(timeout=20))
    sleep(0.01)
    thread.join()
    print(switched)
    gevent.sleep(0)
    print(switched)
    """

    assert said(order, code) == "[1]\necho 1 True\n[]\n['switched']\n"


@in_every_order
def test_a_native_thread_is_no_greenlet(order: str) -> None:
    """It is a thread of the system, with a main greenlet and, where its code waits by gevent, a hub of its own."""
    code = """
    import greenlet, time
    told = SimpleQueue()
    def tell():
        time.sleep(0.001)
        told.put((threading.get_native_id(), greenlet.getcurrent().parent, gevent.get_hub()))
    Thread(tell, name="tell").start()
    number, parent, hub = told.get(timeout=20)
    print(number != threading.get_native_id(), parent, hub is gevent.get_hub())
    """

    assert said(order, code) == "True None False\n"


@in_every_order
def test_an_ended_thread_leaves_no_loop_behind(order: str) -> None:
    """Threads that waited by gevent give their hubs' descriptors back."""
    code = """
    import time
    def wait():
        time.sleep(0.001)
    def run(count):
        for _ in range(count):
            thread = Thread(wait, name="wait")
            thread.start()
            thread.join()
        return len(os.listdir("/dev/fd"))
    first = run(1)
    print(run(20) - first)
    """

    assert said(order, code) == "0\n"


@in_every_order
def test_threads_of_a_forked_child(order: str) -> None:
    """A child of a patched process starts native threads of its own, beside the hub that gevent gives it anew."""
    code = """
    go_on = Event()
    parents = Thread(go_on.wait, (20,), name="parents")
    parents.start()
    gevent.sleep(0.001)
    child = os.fork()
    if child == 0:
        told = SimpleQueue()
        thread = Thread(told.put, ("hello",), name="own")
        thread.start()
        print(told.get(timeout=20), parents.is_alive(), flush=True)
        gevent.sleep(0.001)
        os._exit(0)
    print(os.waitpid(child, 0)[1], parents.is_alive())
    """

    assert said(order, code) == "hello False\n0 True\n"


WHOLE = """
import sys
from boost_core import App

app = App("green", broker=sys.argv[1], store=sys.argv[1])

@app.boost("double", results=True, timeout=20)
def double(number):
    return 2 * number

turns = []
def turn():
    while True:
        turns.append(1)
        gevent.sleep(0.001)
gevent.spawn(turn)

with app.worker():
    jobs = double.push_many((number,) for number in range(200))
    waiting = [gevent.spawn(job.get) for job in jobs]
    gevent.joinall(waiting)
    print(sum(one.value for one in waiting))
    before = len(turns)
    print(all(double.push(number).get(timeout=20) == 2 * number for number in range(50)))
    print(len(turns) > before)
app.close()
"""
"""Pushes, works and waits, in a process whose other greenlets have something to do."""


@in_every_order
@pytest.mark.parametrize("broker", ["memory", "sqlite"])
def test_jobs_are_pushed_worked_and_waited_for_beside_a_hub(
    order: str, broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers, stores and threads are native, so the jobs end; who waits for them lets other greenlets run."""
    monkeypatch.setenv("BOOST_SQLITE_PATH", str(tmp_path / "queue.db"))

    assert said(order, WHOLE, broker) == "39800\nTrue\nTrue\n"
