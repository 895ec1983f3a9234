"""Apps on the embedded queue that are closed and used again, and forks of processes that push."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from boost_core import App


def test_an_app_can_be_used_after_its_close(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """close() publishes what was handed over; pushing again opens the broker anew, from threads and loops."""
    monkeypatch.setenv("BOOST_SQLITE_PATH", str(tmp_path / "queue.db"))
    app = App("again", broker="sqlite", store="sqlite")

    @app.boost("job")
    def job(number: int) -> None: ...

    for number in range(3):
        job.push(number)
        asyncio.run(job.apush(number))
        app.close()

    assert job.depth().ready == 6
    app.close()


FORKING = """
import asyncio, json, os, sys, threading, warnings
from boost_core import App

warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads: what is forked here is made for it
app = App("forking", broker=sys.argv[1], store=sys.argv[1])

@app.boost("job", results=True)
def job(text: str) -> str:
    return f"{os.getpid() == parent} {text}"

@app.boost("untouched")
def untouched() -> None: ...

def in_child(work):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = work()
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        answer = json.load(file)
    os.waitpid(pid, 0)
    return answer

parent = os.getpid()
"""


def forked(tmp_path: Path, broker: str, script: str) -> Any:
    """Run a script that forks, in a process of its own, and return what it prints as JSON."""
    code = FORKING + textwrap.dedent(script)
    environ = {"BOOST_SQLITE_PATH": str(tmp_path / "queue.db"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code, broker],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_forked_child_pushes_to_the_same_queue(tmp_path: Path) -> None:
    """With SQLite a child pushes after its parent did, from sync code and loops, with ids of its own; both are run."""
    script = """
        mine = [job.push("parent").id, asyncio.run(job.apush("parent async")).id]
        theirs = in_child(lambda: [job.push("child").id, asyncio.run(job.apush("child async")).id])
        again = job.push("parent again").id
        depth = job.depth().ready
        from boost_core import Job
        with app.worker(job):
            results = [Job(id, job, True).get(timeout=20) for id in [*mine, *theirs, again]]
        app.close()
        print(json.dumps([depth, len({*mine, *theirs, again}), results]))
    """
    texts = ["parent", "parent async", "child", "child async", "parent again"]

    assert forked(tmp_path, "sqlite", script) == [5, 5, [f"True {text}" for text in texts]]


def test_a_forked_child_may_work_itself(tmp_path: Path) -> None:
    """A child of a pushing process runs a worker of its own on the parent's jobs and waits for their results."""
    script = """
        pushed = job.push("pushed by the parent")

        def work():
            with app.worker(job):
                return [pushed.get(timeout=20), job.push("its own").get(timeout=20)]

        theirs = in_child(work)
        print(json.dumps([theirs, pushed.get(timeout=20), job.depth().ready]))
    """

    theirs = ["False pushed by the parent", "False its own"]
    assert forked(tmp_path, "sqlite", script) == [theirs, theirs[0], 0]


def test_a_fork_of_a_process_with_a_memory_broker_starts_empty(tmp_path: Path) -> None:
    """Memory is the process's own: a child has its own empty queues and can work on them, the parent keeps its jobs."""
    script = """
        job.push("parent")

        def work():
            empty = job.depth().ready
            pushed = job.push("child")
            with app.worker(job):
                return [empty, pushed.get(timeout=20)]

        theirs = in_child(work)
        print(json.dumps([theirs, job.depth().ready]))
    """

    assert forked(tmp_path, "memory", script) == [[0, "False child"], 1]


def test_a_fork_beside_a_thread_that_assembles_doesnt_hang(tmp_path: Path) -> None:
    """A child can push a task for the first time though another thread of the parent was resolving one at the fork."""
    script = """
        resolving, go_on = threading.Event(), threading.Event()
        resolve = type(app.resolver).resolve

        def slowly(self, declared, overrides):
            if os.getpid() == parent and declared.name == "untouched":
                resolving.set()
                assert go_on.wait(20)
            return resolve(self, declared, overrides)

        type(app.resolver).resolve = slowly
        job.push("parent")
        thread = threading.Thread(target=untouched.push)
        thread.start()
        assert resolving.wait(20)
        theirs = in_child(lambda: len(untouched.push().id))
        go_on.set()
        thread.join()
        print(json.dumps([theirs, untouched.depth().ready]))
    """

    assert forked(tmp_path, "sqlite", script) == [32, 2]
