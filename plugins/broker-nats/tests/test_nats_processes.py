"""Workers on NATS that are killed, and servers that are restarted under them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from boost_core import App
from launcher import available
from nats_stage import until

WORKER = r"""
import os, sys, time
from boost_core import App

app = App("doomed", broker=sys.argv[1])

@app.boost(sys.argv[2], concurrency=16)
def hold(number):
    os.write(1, b"runs\n")  # in one piece: sixteen threads do it
    time.sleep(60)

@app.boost(sys.argv[2] + ".fork")
def fork():
    if os.fork() == 0:
        time.sleep(60)  # holds what the worker had open, and outlives it
        os._exit(0)
    os.write(1, b"runs\n")

fork.push()
with app.worker():
    time.sleep(60)
"""


@pytest.fixture
def app(server):
    """Yield an app on the broker."""
    app = App("survivor", broker=server.url, store="memory")
    yield app
    app.close()


def test_a_killed_workers_jobs_are_taken_over(server, app, queue):
    """All sixteen that ran, within 20 s of the kill, though a child that it forked lives on."""
    ran, numbers = set(), range(16)
    task = app.boost(queue, concurrency=16)(lambda number: ran.add(number))
    task.push_many((number,) for number in numbers)
    command = [sys.executable, "-c", WORKER, server.url, queue]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as doomed:
        try:
            for _ in (*numbers, "fork"):
                assert doomed.stdout.readline() == "runs\n"
            os.kill(doomed.pid, signal.SIGKILL)
            doomed.wait()
            with app.worker():
                until(lambda: ran == set(numbers), seconds=20)
                assert task.wait_idle(20)
        finally:
            os.killpg(doomed.pid, signal.SIGKILL)


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_worker_goes_on_after_the_server_was_restarted(launch, queue, end):
    """What ran meanwhile is settled, and what is new runs: once each, unless a killed server forgot what it gave out."""
    server = launch()
    app = App("steady", broker=server.url, store="memory")
    ran, started, go = [], threading.Event(), threading.Event()

    @app.boost(queue, concurrency=2)
    def task(number):
        if number == 0:
            started.set()
            assert go.wait(30)
        ran.append(number)

    task.push(0)
    with app.worker():
        assert started.wait(20)
        getattr(server, end)()
        server.start()
        go.set()
        task.push(1)
        until(lambda: {0, 1} == set(ran))
        assert task.wait_idle(20)
    app.close()
    assert end == "kill" or len(ran) == len({0, 1})


def test_next_attempts_and_dead_letters(app, queue):
    """Published, then acked: a retry waits on the server, and the last failure leaves a dead letter."""
    times = []

    @app.boost(queue, retries=1, retry_delay=0.3)
    def bad():
        times.append(time.monotonic())
        raise ValueError

    bad.push()
    with app.worker():
        assert bad.wait_idle(20)

    assert len(times) == 2
    assert times[1] - times[0] >= 0.3
    assert app.depth(bad.plan).dead == 1


def test_doctor(server, tmp_path):
    """``boost doctor`` reaches the server and runs this package's check."""
    tasks = tmp_path / "tasks.py"
    tasks.write_text("from boost_core import boost\n@boost('t')\ndef t(): ...\n")
    command = [os.path.join(os.path.dirname(sys.executable), "boost"), "doctor", str(tasks), "--broker", server.url]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"reached at {server.url}" in done.stdout
    assert "NATS 2.15 with JetStream" in done.stdout


def test_whether_there_is_a_server():
    """A server that can't be had fails the run where everything must be proven."""
    reason = available("nats")

    assert not (reason and os.environ.get("CI") == "true"), reason
