"""The commands beside ``boost worker``: call, queue, dead, explain and plugins, as real processes."""

from __future__ import annotations

import json

import pytest
from projects import NOTING, Project

HELLO = (
    NOTING
    + """
@boost("hello", results=True)
def hello(name):
    note(name)
    return f"hello {name}"
"""
)


def test_call_waits_for_the_result(project: Project) -> None:
    """Boost call --wait prints the result as JSON; arguments are JSON, else text."""
    path = project.write(
        "tasks.py",
        "from boost_core import boost\n@boost('echo', results=True)\ndef echo(*a, **k):\n    return [list(a), k]\n",
    )
    project.worker(path)

    done = project.boost("call", path, "echo", "1", "two", "[3]", "--kw", '{"four": 4}', "--wait", "20s")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[1, "two", [3]], {"four": 4}]


def test_call_takes_negative_numbers_and_words_that_python_reads_as_numbers(project: Project) -> None:
    """A dash in front of a digit makes no option; NaN is text, as JSON has no such number."""
    path = project.write(
        "tasks.py", "from boost_core import boost\n@boost('echo')\ndef echo(*a):\n    return list(a)\n"
    )
    project.worker(path)

    done = project.boost("call", path, "echo", "-1", "-2.5", "NaN", "--wait", "20s", "--", "-x", "-Infinity")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [-1, -2.5, "NaN", "-x", "-Infinity"]


def test_call_waits_for_the_result_of_a_task_that_stores_none(project: Project) -> None:
    """Who waits wants this one result: the message asks for it."""
    path = project.write("tasks.py", "from boost_core import boost\n@boost('six')\ndef six():\n    return 6\n")
    project.worker(path)

    done = project.boost("call", path, "six", "--wait", "20s")

    assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("echo2",), 5, "TaskUnknown: no task named 'echo2' is declared. Did you mean 'echo'?\n"),
        (("echo", "--kw", "[1]"), 5, "BadOption: --kw '[1]' is no JSON object.\n"),
        (("echo", "--wait", "soon"), 2, "'soon' is no duration"),
        (("echo", "--delay", "-1"), 5, "can't be used: '-1' is no duration"),
        (("echo", "--dealy", "1"), 2, "Error: No such option '--dealy'. (Did you mean one of: '--delay', "),
        (("echo", "-x"), 2, "Error: No such option '-x'."),
        (("echo", "--kw", '{"n": NaN}'), 5, "BadOption: --kw '{\"n\": NaN}' is no JSON: JSON has no NaN"),
    ],
)
def test_a_bad_call_is_told_what_is_wrong(project: Project, arguments: tuple[str, ...], code: int, text: str) -> None:
    """Unknown tasks and unusable options end with a clear text and the right exit code, and push nothing."""
    path = project.write("tasks.py", "from boost_core import boost\n@boost('echo')\ndef echo(*a): ...\n")

    done = project.boost("call", path, *arguments)

    assert done.returncode == code
    assert text in done.stderr
    assert json.loads(project.boost("queue", "list", path, "-o", "json").stdout)[0]["ready"] == 0


def test_a_queue_is_shown_with_where_it_lives(project: Project) -> None:
    """Boost queue show tells each state's count, also before anything was pushed; -o json and name are for programs."""
    path = project.write("tasks.py", HELLO)
    project.boost("call", path, "hello", "one")
    project.boost("call", path, "hello", "later", "--delay", "1h")

    shown = json.loads(project.boost("queue", "show", "hello", "-o", "json").stdout)
    for_people = project.boost("queue", "show", "hello").stdout
    names = [project.boost("queue", *words, "-o", "name").stdout for words in (["list"], ["show", "hello"])]

    assert shown == {
        "queue": "hello",
        "ready": 1,
        "delayed": 1,
        "running": 0,
        "dead": 0,
        "broker": "sqlite",
        "where": project.environ["BOOST_SQLITE_PATH"],
    }
    assert for_people.splitlines()[:3] == ["queue    hello", "ready    1", "delayed  1"]
    assert names == ["hello\n", "hello\n"]


def test_a_misspelt_queue_is_told_from_an_empty_one(project: Project) -> None:
    """A queue that the broker hasn't heard of has nothing, and stderr says so, with the name that was meant."""
    path = project.write("tasks.py", HELLO)
    project.boost("call", path, "hello", "one")

    known, misspelt = (project.boost("queue", "show", name) for name in ("hello", "helo"))

    assert (known.returncode, known.stderr) == (0, "")
    assert (misspelt.returncode, misspelt.stderr) == (0, "there is no queue 'helo' yet; did you mean 'hello'?\n")
    assert "ready    0\n" in misspelt.stdout


def test_dead_letters_are_listed_and_shown(project: Project) -> None:
    """Boost dead list gives a line each, boost dead show everything: attempts, arguments, traceback."""
    path = project.write(
        "bad.py",
        "from boost_core import boost\n@boost('bad', retries=1)\ndef bad(n):\n    raise ValueError(f'no {n}')\n",
    )
    job_id = project.boost("call", path, "bad", "7").stdout.strip()
    project.boost("worker", path, "--burst")

    (row,) = json.loads(project.boost("dead", "list", "-o", "json").stdout)
    shown = project.boost("dead", "show", job_id[:8]).stdout
    missing = project.boost("dead", "show", "nothing-like-it")

    assert (row["id"], row["task"], row["reason"], row["attempt"]) == (job_id, "bad", "failed", 2)
    assert row["error"] == "ValueError: no 7"
    for text in ("attempt 1", "attempt 2", "[7]", "bad.py", "ValueError: no 7"):
        assert text in shown
    assert missing.returncode == 1
    assert "no dead letter has an id that starts with 'nothing-like-it'" in missing.stderr


def test_a_dead_letter_is_found_however_many_lie_before_it(project: Project) -> None:
    """A search that its limit ends says how far it went, and in which queues; several hits are one list."""
    project.python(
        """
        from boost_core import boost
        from boost_core.types import Frame
        @boost("bad")
        def bad(): ...
        bad.push()
        letters = [Frame(f"letter-{number}", "bad.dead", b"") for number in range(10_002)]
        for first in range(0, len(letters), 1000):
            bad.broker.publish(letters[first : first + 1000], 10.0)
        """
    )

    far = project.boost("dead", "show", "letter-10001")
    near = project.boost("dead", "show", "letter-9999")
    several = [project.boost("dead", "show", "letter-99", "-o", form).stdout for form in ("json", "name", "table")]
    further = project.boost("dead", "show", "letter-10001", "--limit", "20000")
    nowhere = project.boost("dead", "show", "nothing-like-it", "--limit", "20000")

    assert far.returncode == 1
    assert far.stderr == (
        "Error: no dead letter has an id that starts with 'letter-10001' among the first 10,000 of bad.dead;"
        " search further by --limit\n"
    )
    assert near.stdout.startswith("id         letter-9999\n")
    some = [f"letter-{number}" for number in (99, *range(990, 1000))]
    assert [letter["id"] for letter in json.loads(several[0])] == some
    assert several[1].splitlines() == some
    assert [part.splitlines()[0].split()[1] for part in several[2].split("\n\n")] == some
    assert further.stdout.startswith("id         letter-10001\n")
    assert nowhere.stderr == "Error: no dead letter has an id that starts with 'nothing-like-it'\n"


def test_a_namespace_goes_before_the_queues_that_commands_name(project: Project) -> None:
    """A queue is found by the project's word for it, and by the name that the lists show."""
    project.write("pyproject.toml", "[tool.boost]\nnamespace = 'prod'\n")
    path = project.write(
        "mail.py", "from boost_core import boost\n@boost('mail', retries=0)\ndef mail():\n    raise ValueError\n"
    )
    job_id = project.boost("call", path, "mail").stdout.strip()
    project.boost("worker", path, "--burst")
    project.boost("call", path, "mail")

    for name in ("mail", "prod.mail"):
        shown = json.loads(project.boost("queue", "show", name, "-o", "json").stdout)
        assert (shown["queue"], shown["ready"], shown["dead"]) == ("prod.mail", 1, 1)
        assert project.boost("dead", "list", name, "-o", "name").stdout == f"{job_id}\n"
        assert "ValueError" in project.boost("dead", "show", job_id, "--queue", name).stdout
    assert project.boost("queue", "list", "-o", "name").stdout == "prod.mail\n"


def test_explain_shows_the_whole_chain(project: Project) -> None:
    """Boost explain names broker, pool, each option's origin, and each control with its package."""
    path = project.write("tasks.py", HELLO)

    text = project.boost("explain", path, "hello").stdout

    for part in (
        "broker   sqlite   (boost-broker-sqlite",
        "pool     threads   (boost-core",
        "EXPIRE expiry (boost-control-expiry)",
        "TIMEOUT timeout (boost-core) > CONTEXT result (boost-core) > hello",
        "RETRY retry (boost-core) > RESULT result (boost-core)",
        f"@boost at {path}:",
    ):
        assert part in text


def test_plugins_lists_everything_found(project: Project) -> None:
    """Boost plugins names kind, distribution, version, api and status of each."""
    rows = json.loads(project.boost("plugins", "-o", "json").stdout)

    found = {(row["kind"], row["name"]): row for row in rows}
    assert found["broker", "sqlite"]["distribution"] == "boost-broker-sqlite"
    assert {row["status"] for row in rows} == {"ok"}
    assert {("pool", "threads"), ("store", "sqlite"), ("codec", "json"), ("control", "expiry")} <= set(found)
