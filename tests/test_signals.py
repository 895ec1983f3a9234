"""What the signals of a worker's process mean to it, to its children, and to whoever reads its output."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys

from projects import BOOST, NOTING, Project, eventually

CHILD = (
    NOTING
    + """
import multiprocessing

def sleep():
    open("asleep", "w").close()
    time.sleep(60)

@boost("parent")
def parent():
    child = multiprocessing.get_context("fork").Process(target=sleep)
    child.start()
    while not os.path.exists("asleep"):
        time.sleep(0.01)
    child.terminate()
    child.join(20)
    note(child.exitcode)
    child.kill()
"""
)


def test_forked_children_of_a_worker_end_by_sigterm(project: Project) -> None:
    """What a job has forked ends as any process does, and the worker isn't told to stop by it."""
    path = project.write("tasks.py", CHILD)
    project.boost("call", path, "parent")

    worked = project.boost("worker", path, "--burst")

    assert worked.returncode == 0
    assert project.notes() == [str(-signal.SIGTERM)]
    assert "draining" not in worked.stderr


SLOW = (
    NOTING
    + """
@boost("slow")
def slow():
    note("started")
    while not os.path.exists("go"):
        time.sleep(0.01)
    note("ended")
"""
)


def test_a_worker_whose_output_nobody_reads_any_more_drains(project: Project) -> None:
    """As after ``boost worker ... 2>&1 | head``: each signal is heard, the running job ends, the exit code is 0."""
    path = project.write("slow.py", SLOW)
    project.boost("call", path, "slow")
    worker = subprocess.Popen(
        [sys.executable, BOOST, "worker", str(path)],
        cwd=project.folder,
        env=project.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    project.processes.append(worker)
    assert worker.stdout is not None
    assert "boost" in worker.stdout.readline()
    worker.stdout.close()
    eventually(project.notes)

    worker.send_signal(signal.SIGTERM)
    worker.send_signal(signal.SIGINT)
    project.write("go", "")

    assert worker.wait(20) == 0
    assert project.notes() == ["started", "ended"]


def test_a_broker_that_cant_be_written_at_the_end_is_a_clear_error(project: Project) -> None:
    """What keeps a worker from stopping cleanly is one text and the exit code of its kind, without a traceback."""
    project.environ["BOOST_BROKER_SQLITE__TIMEOUT"] = "100ms"
    path = project.write("tasks.py", NOTING + "@boost('job')\ndef job():\n    note('ran')\n")
    worker = project.worker(path)
    eventually(lambda: "queues job" in project.log(worker))
    with open(f"{project.environ['BOOST_SQLITE_PATH']}.lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        worker.send_signal(signal.SIGTERM)

        assert worker.wait(30) == 4, project.log(worker)
    last = project.log(worker).splitlines()[-2:]
    assert last[0].startswith("BrokerUnavailable: broker 'sqlite':")
    assert "is kept locked by another process" in last[0]
    assert "Traceback" not in project.log(worker)
