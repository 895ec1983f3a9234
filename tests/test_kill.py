"""kill -9 of workers with running jobs: nothing is lost, and others take over."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter

import pytest
from projects import NOTING, Project, eventually

JOBS = (
    NOTING
    + """
@boost("job", results=True, concurrency=16)
def job(number):
    note(f"start {number} {os.getpid()}")
    while not os.path.exists("go"):
        time.sleep(0.01)
    note(f"end {number} {os.getpid()}")
    return number * 2
"""
)

PUSH = """
    import sys; sys.path.insert(0, ".")
    from jobs import job
    print("\\n".join(job.id for job in job.push_many((n,) for n in range({count}))))
"""

RESULTS = """
    import sys; sys.path.insert(0, ".")
    from jobs import job
    from boost_core import Job
    ids = {ids!r}
    print([Job(id, job, True).get(timeout=30) for id in ids])
"""


def _started(project: Project, pid: int) -> list[str]:
    lines = [line.split() for line in project.notes()]
    return [number for event, number, who in lines if event == "start" and int(who) == pid]


def test_another_worker_takes_over_from_a_killed_one(project: Project) -> None:
    """Sixteen running jobs of a killed worker run again elsewhere, each exactly once more; all results are there."""
    path = project.write("jobs.py", JOBS)
    ids = project.python(PUSH.format(count=40)).split()
    first = project.worker(path)
    eventually(lambda: len(_started(project, first.pid)) == 16)
    second = project.worker(path)
    eventually(lambda: len(_started(project, second.pid)) == 16)

    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    project.write("go", "")

    assert json.loads(project.python(RESULTS.format(ids=ids))) == [number * 2 for number in range(40)]
    starts = Counter(line.split()[1] for line in project.notes() if line.startswith("start"))
    again = {number for number, count in starts.items() if count > 1}
    assert again <= set(_started(project, first.pid))
    assert max(starts.values()) == 2
    second.send_signal(signal.SIGTERM)
    assert second.wait(20) == 0, project.log(second)


FORKING = """
import ctypes, os, sys, time
from jobs import job

def fork_child(worker, how):
    if how == "python":
        child = os.fork()
    else:
        child = ctypes.CDLL(None).fork()  # no hook of Python's runs in this child
    if child == 0:
        time.sleep(60)
        os._exit(0)
    print(f"child {child}", flush=True)

with job.app.worker() as worker:
    while True:
        if os.path.exists("fork"):
            fork_child(worker, open("fork").read().strip())
            os.unlink("fork")
        time.sleep(0.01)
"""


@pytest.mark.parametrize("how", ["python", "c"])
def test_a_surviving_forked_child_doesnt_keep_a_dead_workers_jobs(project: Project, how: str) -> None:
    """A child that inherited the killed worker's locks lives on, and its parent's jobs are taken over all the same."""
    project.write("jobs.py", JOBS)
    project.environ["BOOST_BROKER_SQLITE__LEASE"] = "1.5s"
    program = project.write("forking.py", FORKING)
    ids = project.python(PUSH.format(count=4)).split()
    first = project.start(program)
    eventually(lambda: len(_started(project, first.pid)) == 4)
    project.write("fork", how)
    line = eventually(lambda: [line for line in project.log(first).splitlines() if line.startswith("child")])
    child = int(line[0].split()[1])

    try:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        second = project.worker("jobs.py")
        eventually(lambda: len(_started(project, second.pid)) == 4)
        os.kill(child, 0)  # it lives
        project.write("go", "")
        assert json.loads(project.python(RESULTS.format(ids=ids))) == [0, 2, 4, 6]
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(
    ("deadly", "code"), [("os._exit(9)", 9), ("os.kill(os.getpid(), 11)", -11)], ids=["exit", "segmentation fault"]
)
def test_a_message_that_kills_its_worker_is_dead_after_three(project: Project, deadly: str, code: int) -> None:
    """It takes three workers down with it, the third one alone, and then no more: worker_lost. Its neighbours all end."""
    path = project.write(
        "deadly.py",
        NOTING
        + f"""
@boost("deadly", concurrency=4)
def deadly(number):
    note(f"start {{number}} {{os.getpid()}}")
    if number == 0:
        time.sleep(0.05)
        {deadly}
    while not os.path.exists("go"):
        time.sleep(0.01)
    note(f"end {{number}} {{os.getpid()}}")
""",
    )
    project.python(
        "import sys; sys.path.insert(0, '.'); import deadly; deadly.deadly.push_many((n,) for n in range(4))"
    )

    workers = []
    for _ in range(3):
        workers.append(project.worker(path))
        assert workers[-1].wait(30) == code
    project.write("go", "")
    survivor = project.boost("worker", path, "--burst")

    assert survivor.returncode == 0, survivor.stderr
    (row,) = json.loads(project.boost("dead", "list", "-o", "json").stdout)
    assert (row["task"], row["reason"], row["error"]) == (
        "deadly",
        "worker_lost",
        "3 workers died while they held it",
    )
    assert _started(project, workers[2].pid) == ["0"]
    dead = {str(worker.pid) for worker in workers}
    after = [line.split()[:2] for line in project.notes() if line.split()[2] not in dead]
    assert sorted(after[1::2]) == [["end", str(number)] for number in (1, 2, 3)]
    assert [["start", number] for _, number in after[1::2]] == after[::2]  # one after another


def test_a_stopped_worker_is_taken_over_and_its_late_end_counts_no_more(project: Project) -> None:
    """A worker that was frozen past its lease loses its jobs; when it thaws, its outcome is refused."""
    project.environ["BOOST_BROKER_SQLITE__LEASE"] = "1s"
    path = project.write("jobs.py", JOBS)
    ids = project.python(PUSH.format(count=1)).split()
    first = project.worker(path)
    eventually(lambda: _started(project, first.pid))

    first.send_signal(signal.SIGSTOP)
    second = project.worker(path)
    eventually(lambda: _started(project, second.pid))
    project.write("go", "")
    assert json.loads(project.python(RESULTS.format(ids=ids))) == [0]
    first.send_signal(signal.SIGCONT)
    eventually(lambda: f"end 0 {first.pid}" in project.notes())
    first.send_signal(signal.SIGTERM)

    assert first.wait(20) == 0, project.log(first)
    assert "1 lost" in project.log(first)
    rows = json.loads(project.boost("queue", "list", path, "-o", "json").stdout)
    assert {rows[0][state] for state in ("ready", "delayed", "running", "dead")} == {0}


def test_killing_a_pushing_process_loses_no_acknowledged_push(project: Project) -> None:
    """Every job whose push returned before the kill -9 is on the queue."""
    path = project.write(
        "pushing.py",
        "from boost_core import boost\n@boost('pushed')\ndef f(n): ...\n"
        "if __name__ == '__main__':\n    n = 0\n    while True:\n        f.push(n)\n        n += 1\n        print(n, flush=True)\n",
    )
    pushing = project.start(path)
    eventually(lambda: project.log(pushing).count("\n") > 300)

    os.kill(pushing.pid, signal.SIGKILL)
    pushing.wait()

    acknowledged = int([line for line in project.log(pushing).splitlines(keepends=True) if line.endswith("\n")][-1])
    rows = json.loads(project.boost("queue", "list", path, "-o", "json").stdout)
    assert acknowledged <= rows[0]["ready"] <= acknowledged + 1
