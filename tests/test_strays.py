"""What shouldn't be on a queue, seen from the shell: real workers on the embedded queue, and what they leave behind."""

from __future__ import annotations

import json
import re

from projects import NOTING, Project

TASKS = (
    NOTING
    + """
@boost("mixed")
def job(number: int):
    note(f"ran {number}")
"""
)

PUBLISH = """
    import sys; sys.path.insert(0, ".")
    from boost_core.types import Frame
    from tasks import job
    job.push(0)
    for number, body in enumerate({bodies!r}, 1):
        job.broker.publish([Frame(f"stray-{{number}}", "mixed", body)], 5.0)
        job.push(number)
"""

STRAYS = {
    b"\x80\x04K": (
        "bad_payload",
        "the body is no message of boost: it starts with b'\\x80\\x04K' instead of a codec's name",
    ),
    b"json\n{": ("bad_payload", "the body is no message of boost: Input data was truncated"),
    b'json\n{"v":2,"id":"n","shape":"unheard of"}': (
        "newer_version",
        "the message is of version 2; this worker reads up to version 1. Upgrade it.",
    ),
    b'json\n{"v":1,"id":"x","task":"mixed","at":1,"args":["one"]}': (
        "bad_payload",
        "DecodeError: task 'mixed', argument 'number': Expected `int`, got `str`",
    ),
}


def test_unreadable_messages_are_listed_and_harm_no_neighbour(project: Project) -> None:
    """A worker makes dead letters of them, with reason and error, and runs all others, one after each of them."""
    path = project.write("tasks.py", TASKS)
    project.python(PUBLISH.format(bodies=list(STRAYS)))

    worked = project.boost("worker", path, "--burst", "--concurrency", "1")
    letters = json.loads(project.boost("dead", "list", "mixed", "-o", "json").stdout)

    assert worked.returncode == 0, worked.stderr
    assert project.notes() == [f"ran {number}" for number in range(len(STRAYS) + 1)]
    assert [(letter["reason"], letter["error"]) for letter in letters] == [
        (reason, error[:80]) for reason, error in STRAYS.values()
    ]
    (row,) = json.loads(project.boost("queue", "list", path, "-o", "json").stdout)
    assert (row["ready"], row["running"], row["dead"]) == (0, 0, len(STRAYS))


def test_an_unreadable_message_is_shown_with_its_bytes(project: Project) -> None:
    """Boost dead show tells the whole error, and what stands where arguments should be."""
    path = project.write("tasks.py", TASKS)
    project.python(PUBLISH.format(bodies=[b"\x80\x04K"]))
    project.boost("worker", path, "--burst")
    (letter,) = json.loads(project.boost("dead", "list", "-o", "json").stdout)

    (shown,) = json.loads(project.boost("dead", "show", letter["id"], "-o", "json").stdout)

    error = "the body is no message of boost: it starts with b'\\x80\\x04K' instead of a codec's name"
    assert (shown["error"], shown["task"], shown["traceback"]) == (error, None, None)
    assert shown["arguments"] == f"unreadable ({error}): b'\\x80\\x04K'"


def test_a_message_for_an_unknown_task_waits_for_a_deploy(project: Project) -> None:
    """A worker that doesn't know the task parks it in the broker, says so, runs its neighbours and leaves."""
    path = project.write("tasks.py", TASKS)
    project.python(
        "import sys; sys.path.insert(0, '.'); import tasks\n"
        "tasks.job.app.send('newer', [1], queue='mixed')\ntasks.job.push(7)\n"
    )

    worked = project.boost("worker", path, "--burst")

    assert worked.returncode == 0, worked.stderr
    (job_id,) = re.findall("[0-9a-f]{32}", worked.stderr)
    assert re.findall(r"WARNING (.*)", worked.stderr) == [
        "queue mixed: no task named 'newer' is declared here; its message waits",
        f"job {job_id} of newer comes back in 60 s after attempt 1: UnknownTask",
    ]
    assert project.notes() == ["ran 7"]
    (row,) = json.loads(project.boost("queue", "list", path, "-o", "json").stdout)
    assert (row["ready"], row["delayed"], row["running"], row["dead"]) == (0, 1, 0, 0)
