"""``boost worker``: its targets, queues and pools, and how it ends, as a real process."""

from __future__ import annotations

import json
import signal

import pytest
from projects import NOTING, Project, eventually

HELLO = (
    NOTING
    + """
@boost("hello", results=True)
def hello(name):
    note(name)
    return f"hello {name}"
"""
)


@pytest.mark.parametrize(
    "name",
    [
        "tasks.py",
        "my tasks.py",
        "my-tasks.py",
        "任务.py",
        "json.py",
        "deep down/2 tasks.py",
        "a.b.py",
        "report.2024.py",
    ],
)
def test_a_worker_takes_a_file_of_any_name_in_any_folder(project: Project, name: str) -> None:
    """A task file's name may hold blanks, hyphens, dots, Chinese, or be that of a standard module."""
    path = project.write(name, HELLO)

    pushed = project.boost("call", path, "hello", "boost")
    worked = project.boost("worker", path, "--burst")

    assert pushed.returncode == 0, pushed.stderr
    assert worked.returncode == 0, worked.stderr
    assert project.notes() == ["boost"]


def test_a_target_may_be_a_module_an_app_in_it_or_a_file_of_a_package(project: Project) -> None:
    """Modules, module:attribute and files inside packages (relative imports work) are targets."""
    project.write("pack/__init__.py", "")
    project.write("pack/words.py", "WORD = 'relative'")
    text = NOTING.replace("import boost, current", "import App")
    project.write(
        "pack/jobs.py",
        text + "from .words import WORD\napp = App('own')\n@app.boost('say')\ndef say():\n    note(WORD)\n",
    )

    for target in ("pack.jobs", "pack.jobs:app", "pack/jobs.py"):
        assert project.boost("call", target, "say").returncode == 0
        worked = project.boost("worker", target, "--burst")
        assert worked.returncode == 0, worked.stderr

    assert project.notes() == ["relative"] * 3


def test_a_target_in_a_package_that_another_one_hides(project: Project) -> None:
    """The file that was named is loaded, with its relative imports, whoever else's package has its package's name."""
    text = NOTING + "from . import words\n@boost('NAME')\ndef say():\n    note(words.WORD)\n"
    for folder in ("one/pack", "two/pack", "click"):  # click is what the command itself is made with
        name = folder.replace("/", "-")
        project.write(f"{folder}/__init__.py", "")
        project.write(f"{folder}/words.py", f"WORD = {name!r}")
        project.write(f"{folder}/jobs.py", text.replace("NAME", name))
    targets = ["one/pack/jobs.py", "two/pack/jobs.py", "click/jobs.py"]

    for name, target in zip(("one-pack", "two-pack", "click"), targets, strict=True):
        assert project.boost("call", target, name).returncode == 0
    worked = project.boost("worker", *targets, "--burst")

    assert worked.returncode == 0, worked.stderr
    assert sorted(project.notes()) == ["click", "one-pack", "two-pack"]


def test_several_apps_are_told_apart_by_their_attributes(project: Project) -> None:
    """The error lists what to type, and each of it works; ``boost`` is the app of the plain decorator."""
    text = NOTING.replace("import boost, current", "import App, boost")
    for name, place in (("a", "a"), ("b", "b")):
        text += f"{name} = App()\n@{name}.boost('on {place}')\ndef on_{name}():\n    note({place!r})\n"
    path = project.write("apps.py", text + "@boost('on boost')\ndef on_boost():\n    note('boost')\n")

    several = project.boost("worker", path, "--burst")
    for name in ("a", "b", "boost"):
        assert project.boost("call", f"{path}:{name}", f"on {name}").returncode == 0
        assert project.boost("worker", f"{path}:{name}", "--burst").returncode == 0

    assert several.returncode == 3
    assert several.stderr == (
        f"TargetError: target '{path}': there are several apps; name one: {path}:a, {path}:b, {path}:boost\n"
    )
    assert project.notes() == ["a", "b", "boost"]


def test_queues_of_one_name_on_two_brokers_are_two(project: Project) -> None:
    """Each has a row, which says its broker."""
    text = "from boost_core import boost\n"
    for broker in ("sqlite", "memory"):
        text += f"@boost('q', name={broker!r}, broker={broker!r})\ndef on_{broker}(): ...\n"
    path = project.write("two.py", text)
    project.boost("call", path, "sqlite")

    rows = json.loads(project.boost("queue", "list", path, "-o", "json").stdout)

    assert [(row["queue"], row["broker"], row["ready"]) for row in rows] == [("q", "memory", 0), ("q", "sqlite", 1)]


def test_a_file_that_doesnt_import_shows_the_users_line(project: Project) -> None:
    """Exit code 3, the user's own line, and none of ours."""
    path = project.write("broken.py", "from boost_core import boost\nvalue = 1 / 0\n")

    done = project.boost("worker", path)

    assert done.returncode == 3
    assert done.stderr.startswith(f"TargetError: target '{path}': it doesn't import:")
    assert 'broken.py", line 2' in done.stderr
    assert "value = 1 / 0" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "boost_core" not in done.stderr.replace("from boost_core import", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (\n", "  File \"{part}\", line 1\n    x = (\nSyntaxError: '(' was never closed\n"),
        ("x = 1\0\n", "SyntaxError: source code string cannot contain null bytes\n"),
    ],
    ids=["half a line", "a null byte"],
)
def test_a_file_that_imports_a_broken_one_shows_the_users_line(project: Project, text: str, said: str) -> None:
    """What doesn't parse is another file: the line that imports it is shown, then what is wrong there."""
    part = project.write("part.py", text)
    path = project.write("tasks.py", "import part\n")

    done = project.boost("worker", path)

    assert done.returncode == 3
    assert without_carets(done.stderr) == (
        f"TargetError: target '{path}': it doesn't import:\n"
        f'  File "{path}", line 1, in <module>\n    import part\n{said.format(part=part)}'
    )


def without_carets(text: str) -> str:
    """Return a traceback without the lines that point at parts of others: each Python draws its own."""
    return "".join(line for line in text.splitlines(keepends=True) if line.strip(" ^~\n"))


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("./part", "'part' is a folder; name a .py file in it"),
        (".", "'.' is a folder; name a .py file in it"),
        ("nowhere.py", "there is no file 'nowhere.py'"),
        ("nowhere_at_all", "there is no module 'nowhere_at_all' here or installed"),
        ("empty.py", "declares no task; decorate a function with @boost()"),
        ("empty.py:thing", "'thing' in it is NoneType, not an App"),
    ],
)
def test_a_target_that_names_nothing_says_so(project: Project, target: str, text: str) -> None:
    """Exit code 3 and one clear line."""
    project.write("empty.py", "")
    project.write("part/tasks.py", HELLO)

    done = project.boost("worker", target)

    assert (done.returncode, done.stderr) == (3, f"TargetError: target '{target}': {text}\n")


def test_sigterm_drains(project: Project) -> None:
    """Running jobs end and are recorded, waiting ones stay on the queue, and the exit code is 0."""
    path = project.write(
        "slow.py",
        NOTING + "@boost('slow', concurrency=2)\ndef slow(n):\n    note(n)\n    time.sleep(0.3)\n    note('end')\n",
    )
    project.python("import sys; sys.path.insert(0, '.'); import slow; slow.slow.push_many((n,) for n in range(6))")
    worker = project.worker(path)
    eventually(lambda: len(project.notes()) >= 2)

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(20) == 0, project.log(worker)
    started = [note for note in project.notes() if note != "end"]
    assert project.notes().count("end") == len(started)
    rows = json.loads(project.boost("queue", "list", path, "-o", "json").stdout)
    assert (rows[0]["ready"], rows[0]["running"]) == (6 - len(started), 0)


STUBBORN = (
    NOTING
    + """
@boost("stubborn")
def stubborn():
    note("started")
    time.sleep(60)
"""
)


def test_a_drain_that_takes_too_long_hands_back_and_says_so(project: Project) -> None:
    """After the drain time-out the job's message is back on the queue, uncounted, and the exit code is 75."""
    path = project.write("stubborn.py", STUBBORN)
    project.boost("call", path, "stubborn")
    worker = project.worker(path, "--drain-timeout", "0.1s")
    eventually(project.notes)

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(30) == 75, project.log(worker)
    rows = json.loads(project.boost("queue", "list", path, "-o", "json").stdout)
    assert (rows[0]["ready"], rows[0]["running"]) == (1, 0)


def test_ctrl_c_twice_stops_now(project: Project) -> None:
    """The first Ctrl-C drains and says how to stop; the second one hands back and exits with 130."""
    path = project.write("stubborn.py", STUBBORN)
    project.boost("call", path, "stubborn")
    worker = project.worker(path)
    eventually(project.notes)

    worker.send_signal(signal.SIGINT)
    eventually(lambda: "Ctrl-C again to stop now" in project.log(worker))
    worker.send_signal(signal.SIGINT)

    assert worker.wait(30) == 130, project.log(worker)
    rows = json.loads(project.boost("queue", "list", path, "-o", "json").stdout)
    assert (rows[0]["ready"], rows[0]["running"]) == (1, 0)


def test_a_third_ctrl_c_leaves_at_once_and_loses_nothing(project: Project) -> None:
    """Whoever has no patience at all gets out; the queue's next worker finds the message."""
    path = project.write(
        "stubborn.py", STUBBORN.replace("time.sleep(60)", "time.sleep(60 if not os.path.exists('go') else 0)")
    )
    project.boost("call", path, "stubborn")
    worker = project.worker(path)
    eventually(project.notes)

    for count in (1, 2, 3):
        worker.send_signal(signal.SIGINT)
        if count < 3:
            text = ("again to stop now", "asked to end")[count - 1]
            eventually(lambda wanted=text: wanted in project.log(worker))
    assert worker.wait(30) == 130
    project.write("go", "")
    assert project.boost("worker", path, "--burst").returncode == 0

    assert project.notes() == ["started", "started"]


def test_queues_can_be_chosen(project: Project) -> None:
    """-q limits a worker to some queues; an unknown one is an error that lists those there are, as none is."""
    path = project.write(
        "two.py", NOTING + "@boost('a')\ndef a():\n    note('a')\n@boost('b')\ndef b():\n    note('b')\n"
    )
    project.boost("call", path, "a")
    project.boost("call", path, "b")

    assert project.boost("worker", path, "--burst", "-q", "b").returncode == 0
    wrong = project.boost("worker", path, "--burst", "-q", "c")
    empty = project.boost("worker", path, "--burst", "-q", ",")

    assert project.notes() == ["b"]
    assert (empty.returncode, empty.stderr.splitlines()[-1]) == (
        2,
        "Error: -q names no queue; leave it out to work on all",
    )
    assert wrong.returncode == 5
    assert wrong.stderr == "BadOption: no task of this target uses the queue 'c'.\n  Its queues: a, b\n"


def test_a_queue_with_a_comma_in_its_name_can_be_chosen(project: Project) -> None:
    """A text that names a queue as it stands is that queue; only others are taken apart at their commas."""
    path = project.write(
        "odd.py",
        NOTING
        + "@boost('a,b')\ndef one():\n    note('a,b')\n"
        + "@boost('a')\ndef two():\n    note('a')\n"
        + "@boost('b')\ndef three():\n    note('b')\n",
    )
    for name in ("a", "b", "a,b"):
        assert project.boost("call", path, name).returncode == 0

    assert project.boost("worker", path, "--burst", "-q", "a,b").returncode == 0
    assert project.notes() == ["a,b"]
    assert project.boost("worker", path, "--burst", "-q", "b, a").returncode == 0
    assert sorted(project.notes()) == ["a", "a,b", "b"]


def test_the_first_line_says_where_the_queue_is(project: Project) -> None:
    """A worker's first line names broker, file, queues and pool."""
    path = project.write("tasks.py", HELLO)

    done = project.boost("worker", path, "--burst", "--concurrency", "3")

    first = done.stderr.splitlines()[0]
    assert f"broker sqlite ({project.environ['BOOST_SQLITE_PATH']})" in first
    assert "queues hello" in first
    assert "threads x 3" in first


def test_the_pool_can_be_chosen(project: Project) -> None:
    """--pool runs all tasks in another way than they say; one that can't run them is refused with the reason."""
    path = project.write("tasks.py", HELLO)
    project.boost("call", path, "hello", "one")

    wrong = project.boost("worker", path, "--burst", "--pool", "asyncio")
    worked = project.boost("worker", path, "--burst", "--pool", "solo")

    assert (wrong.returncode, wrong.stderr) == (
        5,
        (
            "BadOption: task 'hello' is a plain function; on pool 'asyncio' it would block the event loop.\n"
            '  Say sync="thread" to run it in the pool\'s side threads, or use pool="threads".\n'
        ),
    )
    assert "| solo x 1" in worked.stderr.splitlines()[0]
    assert project.notes() == ["one"]


def test_a_queue_of_any_name_works(project: Project) -> None:
    """Slashes, blanks inside and Chinese are fine in a queue's name."""
    names = ["a/b", "订单 处理", "x" * 180]
    text = NOTING + "".join(f"@boost({name!r})\ndef t{n}():\n    note({n})\n" for n, name in enumerate(names))
    path = project.write("names.py", text)

    for name in names:
        assert project.boost("call", path, name).returncode == 0
    assert project.boost("worker", path, "--burst").returncode == 0

    assert sorted(project.notes()) == ["0", "1", "2"]


def test_a_queue_name_that_is_too_long_is_refused(project: Project) -> None:
    """300 characters are too many; the error counts them at the user's own line, and shows none of ours."""
    path = project.write("long.py", "from boost_core import boost\nmuch = 'x' * 300\nboost(much)(print)\n")

    done = project.boost("worker", path)

    assert done.returncode == 3
    assert without_carets(done.stderr) == (
        f"TargetError: target '{path}': it doesn't import:\n"
        f'  File "{path}", line 3, in <module>\n    boost(much)(print)\n'
        f"BadName: task name '{'x' * 57}...' is 300 characters long; at most 180 are allowed.\n"
    )


def test_two_scripts_with_a_run_each_dont_take_each_others_jobs(project: Project) -> None:
    """Where neither name nor queue was given, a queue belongs to the file that declared it first."""
    first = project.write("one.py", NOTING + "@boost()\ndef run():\n    note('one')\n")
    second = project.write("two.py", NOTING + "@boost()\ndef run():\n    note('two')\n")
    assert project.boost("call", first, "run").returncode == 0

    refused = project.boost("worker", second, "--burst")

    assert refused.returncode == 5
    assert "TaskConflict: two functions claim the queue 'run'" in refused.stderr
    assert str(first) in refused.stderr
    assert str(second) in refused.stderr
    assert project.boost("worker", first, "--burst").returncode == 0
    assert project.notes() == ["one"]


def test_more_is_logged_when_asked(project: Project) -> None:
    """-v shows what boost does in detail, -vv what all libraries do as well."""
    text = "import logging\nlogging.getLogger('boost.broker.acme').debug('detail')\nlogging.getLogger('other').debug('more')\n"
    path = project.write("tasks.py", text + HELLO)

    said = [project.boost(*options, "worker", path, "--burst").stderr for options in ([], ["-v"], ["-vv"])]

    assert [(" detail\n" in log, " more\n" in log) for log in said] == [(False, False), (True, False), (True, True)]


def test_controls_and_extensions_can_be_left_out(project: Project) -> None:
    """--no-plugins has workers without them as well, so that one that is broken keeps nobody from working."""
    path = project.write("tasks.py", HELLO)

    with_all = project.boost("explain", path, "hello").stdout
    without = project.boost("--no-plugins", "explain", path, "hello").stdout

    assert "boost-control-expiry" in with_all
    assert "boost-control-expiry" not in without
    assert "RETRY retry (boost-core)" in without
