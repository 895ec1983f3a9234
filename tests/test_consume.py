"""funboost's way: one script that pushes, then consumes, and lives until it is told to stop."""

from __future__ import annotations

import signal

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
