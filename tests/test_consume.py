"""funboost's way: one script that pushes, then consumes, and lives until it is told to stop."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest
from projects import NOTING, Project, eventually

SCRIPT = (
    NOTING
    + """
@boost("f")
def f(number):
    time.sleep(0.002)
    note(f"f {number}")

@boost("g")
def g(number):
    note(f"g {number}")

if __name__ == "__main__":
    for number in range(100):
        f.push(number)
        g.push(number)
    f.consume()
    g.consume()
    note("main is through")
"""
)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_script_pushes_consumes_and_leaves_with_a_drain(project: Project, number: int, code: int) -> None:
    """The process outlives its main code, works off all jobs of both tasks, and ends cleanly on a signal."""
    script = project.start(project.write("script.py", SCRIPT))
    eventually(lambda: len(project.notes()) == 201)
    assert script.poll() is None

    script.send_signal(number)

    assert script.wait(20) == code, project.log(script)
    assert sorted(project.notes()) == sorted(["main is through", *(f"{name} {n}" for name in "fg" for n in range(100))])
    assert "Traceback" not in project.log(script)


LATE_WORK = (
    NOTING
    + """
import asyncio, concurrent.futures, sys, threading
through = threading.Event()

def wait_for_the_end_of_main():
    through.wait()
    main = threading.main_thread().ident
    while sys._current_frames()[main].f_code.co_filename != threading.__file__:
        time.sleep(0.01)

@boost("executor", retries=0)
def executor():
    wait_for_the_end_of_main()
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        note(f"executor {sum(pool.map(abs, [-1, -2]))}")

@boost("processes", retries=0)
def processes():
    wait_for_the_end_of_main()
    import multiprocessing
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        note(f"processes {sum(pool.map(abs, [-1, -2]))}")

@boost("loop", retries=0)
async def loop():
    wait_for_the_end_of_main()
    note(f"to_thread {await asyncio.to_thread(abs, -3)}")
    note(f"getaddrinfo {len(await asyncio.get_running_loop().getaddrinfo('127.0.0.1', 80, proto=6))}")

if __name__ == "__main__":
    for task in (executor, processes, loop):
        task.push()
        task.consume()
    through.set()
"""
)


def test_jobs_use_executors_after_the_main_code_has_ended(project: Project) -> None:
    """Nothing that Python takes away at its end is taken from jobs that outlive the main code."""
    script = project.start(project.write("script.py", LATE_WORK))
    eventually(lambda: len(project.notes()) == 4 or "dead letter" in project.log(script))

    script.send_signal(signal.SIGTERM)

    assert script.wait(20) == -signal.SIGTERM, project.log(script)
    assert sorted(project.notes()) == ["executor 3", "getaddrinfo 1", "processes 3", "to_thread 3"]


def test_ctrl_c_in_a_scripts_own_code_drains_too(project: Project) -> None:
    """The script's own code sees its KeyboardInterrupt, and the running job still ends."""
    text = (
        NOTING
        + """
@boost("long")
def long():
    note("started")
    time.sleep(1)
    note("ended")

if __name__ == "__main__":
    long.push()
    long.consume()
    try:
        note("in its own code")
        time.sleep(60)
    except KeyboardInterrupt:
        note("interrupted")
"""
    )
    script = project.start(project.write("script.py", text))
    eventually(lambda: {"started", "in its own code"} <= set(project.notes()))

    script.send_signal(signal.SIGINT)

    assert script.wait(20) == 0, project.log(script)
    assert project.notes()[2:] == ["interrupted", "ended"]


def test_a_second_consume_of_a_task_is_told_off(project: Project) -> None:
    """It warns with the caller's own line and changes nothing."""
    text = (
        NOTING
        + """
import warnings
@boost("f")
def f():
    note("ran")

if __name__ == "__main__":
    f.consume()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        f.consume()
    note(f"{caught[0].category.__name__} {caught[0].filename == __file__}: {caught[0].message}")
    f.push()
    assert f.wait_idle(10)
    os.kill(os.getpid(), 2)
"""
    )
    script = project.start(project.write("script.py", text))

    assert script.wait(20) in (0, 1, -2), project.log(script)
    assert project.notes() == [
        "RuntimeWarning True: task 'f' is consumed in this process already; the second consume() changes nothing",
        "ran",
    ]


def test_consume_reports_what_keeps_it_from_starting(project: Project) -> None:
    """A bad option is raised by consume() itself, and no process lingers."""
    text = "from boost_core import boost\n@boost('f', concurency=3)\ndef f(): ...\nif __name__ == '__main__':\n    f.consume()\n"
    script = project.start(project.write("script.py", text))

    assert script.wait(20) == 1
    assert "has no option 'concurency'. Did you mean 'concurrency'?" in project.log(script)


def test_a_consume_that_failed_costs_the_others_nothing(project: Project) -> None:
    """A task that can't be worked on is refused each time it is tried, and those beside it are worked on."""
    text = (
        NOTING
        + """
@boost("first", nonsense=1)
def first(): ...

@boost("shared")
def plain():
    note("ran")

@boost("shared", name="other", pool="solo")
def other(): ...

@boost("last")
def last():
    note("ran")

def consume(task):
    try:
        task.consume()
    except Exception as error:
        return type(error).__name__

if __name__ == "__main__":
    note([consume(task) for task in (first, first, plain, other, other, last)])
    plain.push()
    last.push()
    assert plain.wait_idle(10) and last.wait_idle(10)
    os.kill(os.getpid(), 2)
"""
    )
    script = project.start(project.write("script.py", text))

    assert script.wait(20) in (0, 1, -2), project.log(script)
    refused = [str(["BadOption", "BadOption", None, "BadOption", "BadOption", None])]
    assert project.notes() == [*refused, "ran", "ran"]


STUBBORN = (
    NOTING
    + """
@boost("stubborn")
def stubborn():
    note("started")
    time.sleep(60)

@boost("polite")
def polite():
    note("started")
    try:
        while not os.path.exists("go"):
            current.check()
            time.sleep(0.01)
    except BaseException as error:
        note(type(error).__name__)
        raise
    note("ended")

if __name__ == "__main__":
    task = {"stubborn": stubborn, "polite": polite}[sys.argv[1]]
    task.push()
    task.consume()
    try:
        note("in its own code")
        time.sleep(60)
    except KeyboardInterrupt:
        note("interrupted")
"""
).replace("import os, time", "import os, sys, time")


def started(project: Project, job: str) -> subprocess.Popen[str]:
    """Return a script whose own code runs beside a job that does."""
    script = project.start(project.write("script.py", STUBBORN), job)
    eventually(lambda: {"started", "in its own code"} <= set(project.notes()))
    return script


def test_a_second_ctrl_c_asks_running_jobs_to_end(project: Project) -> None:
    """The job hears it, and its message goes back; each Ctrl-C is answered, though the script has no logging."""
    script = started(project, "polite")

    script.send_signal(signal.SIGINT)
    eventually(lambda: "interrupted" in project.notes())
    script.send_signal(signal.SIGINT)

    assert script.wait(20) in (0, -signal.SIGINT), project.log(script)  # the latter where it met the end of the script
    assert project.notes()[2:] == ["interrupted", "JobCancelled"]
    assert project.log(script).splitlines() == [
        "draining: 1 jobs here, at most 25 s; Ctrl-C again to stop now",
        "stopping: running jobs are asked to end, their messages go back",
    ]
    assert json.loads(project.boost("queue", "list", "-o", "json").stdout)[0]["ready"] == 1


def test_a_third_ctrl_c_ends_the_process_there_and_then(project: Project) -> None:
    """Whoever has no patience gets out of a job that hears nothing."""
    script = started(project, "stubborn")

    script.send_signal(signal.SIGINT)
    eventually(lambda: "interrupted" in project.notes())
    script.send_signal(signal.SIGINT)
    eventually(lambda: "running jobs are asked to end" in project.log(script))
    script.send_signal(signal.SIGINT)

    assert script.wait(20) == -signal.SIGINT


def test_a_second_sigterm_changes_nothing(project: Project) -> None:
    """The drain goes on to its end, and then the process ends by the signal."""
    script = started(project, "polite")

    for count in (1, 2):
        script.send_signal(signal.SIGTERM)
        eventually(lambda wanted=count: project.log(script).count("draining") == wanted)
    project.write("go", "")

    assert script.wait(20) == -signal.SIGTERM
    assert project.notes()[2:] == ["ended"]


def test_a_handler_that_exits_at_the_end_cuts_no_thread_off(project: Project) -> None:
    """A script's own SIGTERM handler may call sys.exit: Python still waits for the threads that aren't daemons."""
    text = (
        NOTING
        + """
import signal, sys, threading
handled = threading.Event()

def leave(*_):
    handled.set()
    sys.exit(7)

def own_work():
    handled.wait()
    time.sleep(0.5)
    note("own thread is through")

@boost("f")
def f(): ...

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, leave)
    threading.Thread(target=own_work).start()
    f.consume()
    note("main is through")
"""
    )
    script = project.start(project.write("script.py", text))
    eventually(lambda: project.notes() == ["main is through"])

    script.send_signal(signal.SIGTERM)
    script.wait(20)

    assert project.notes() == ["main is through", "own thread is through"], project.log(script)


def test_a_file_that_consumes_as_it_is_imported_is_served_by_the_command_alone(project: Project) -> None:
    """Two workers in a process would each have its slots, and one of them no drain; the file's line is told."""
    text = NOTING + "@boost('f')\ndef f():\n    note('ran')\nf.consume()\n"
    path = project.write("tasks.py", text)
    project.boost("call", path, "f")

    worked = project.boost("worker", path, "--burst")

    assert (worked.returncode, project.notes()) == (0, ["ran"])
    line = text.splitlines().index("f.consume()") + 1
    assert worked.stderr.splitlines()[0] == (
        f"{path}:{line}: RuntimeWarning: consume() of task 'f' does nothing where the boost command imports its file; "
        "put it under if __name__ == '__main__':"
    )
    assert worked.stderr.count(" | broker sqlite ") == 1


def test_consume_outside_of_the_main_thread_is_refused(project: Project) -> None:
    """It couldn't hear Ctrl-C there, and would end without a drain; once the worker is there, any thread may add."""
    text = (
        NOTING
        + """
import threading
@boost("f")
def f(): ...
@boost("g")
def g():
    note("g ran")

def consume(task):
    try:
        task.consume()
    except Exception as error:
        note(error)

def elsewhere(task):
    thread = threading.Thread(target=consume, args=(task,))
    thread.start()
    thread.join()

if __name__ == "__main__":
    elsewhere(g)
    f.consume()
    elsewhere(g)
    g.push()
    assert g.wait_idle(10)
    os.kill(os.getpid(), 15)
"""
    )
    script = project.start(project.write("script.py", text))

    assert script.wait(20) == -signal.SIGTERM, project.log(script)
    assert project.notes() == [
        "consume() hears Ctrl-C and SIGTERM to drain at the end, which only the main thread can.",
        "  Call it there, or use a worker: with app.worker(task): ...",
        "g ran",
    ]
