"""``boost doctor`` and ``boost brokers``, as real processes."""

from __future__ import annotations

import json
import socket

from projects import Project

TASK = "from boost_core import boost\n@boost('t')\ndef t(): ...\n"


def test_doctor_says_what_it_found_and_ends_with_zero(project: Project) -> None:
    """A sound project: the broker is reached, and each check has a line."""
    path = project.write("tasks.py", TASK)

    done = project.boost("doctor", path, "-o", "json")

    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["check"] for row in rows} == {"sqlite", "plugins", "open-files", "disk"}
    assert f"reached at {project.environ['BOOST_SQLITE_PATH']}" in {row["what"] for row in rows}
    assert {row["level"] for row in rows} <= {"ok", "warning"}


def test_doctor_ends_with_five_on_a_danger(project: Project) -> None:
    """A broker that can't be opened is a danger with its remedy; the other checks run all the same."""
    path = project.write("tasks.py", TASK)
    project.environ["BOOST_SQLITE_PATH"] = "/proc/boost/queue.db"

    done = project.boost("doctor", path)

    assert done.returncode == 5
    lines = done.stdout.splitlines()
    assert lines[0].startswith("danger   sqlite               broker 'sqlite': /proc/boost/queue.db can't be used")
    assert "BOOST_SQLITE_PATH=/path/to/file.db" in lines[1]
    assert any(line.startswith("ok       open-files") for line in lines)


def test_doctor_goes_on_where_a_plugin_fails_in_a_way_of_its_own(project: Project) -> None:
    """A broker that raises what no contract knows is a danger that names the error; the rest is looked at all the same."""
    project.write("odd.py", "def broker(options):\n    raise ValueError('no such thing')\n")
    spec = "from boost_core.plugin import BrokerSpec\nODD = BrokerSpec(name='odd', factory='odd:broker')\n"
    path = project.write("tasks.py", spec + TASK.replace("'t'", "'t', broker=ODD"))

    done = project.boost("doctor", path)

    assert (done.returncode, done.stderr) == (5, "")
    assert done.stdout.splitlines()[0].split(maxsplit=2) == ["danger", "odd", "ValueError: no such thing"]
    assert "ok       open-files" in done.stdout


def test_doctor_names_a_task_that_does_not_resolve(project: Project) -> None:
    """A task whose broker isn't installed is a danger; those that do resolve are examined."""
    path = project.write("tasks.py", TASK + "@boost('u', broker='nowhere')\ndef u(): ...\n")

    done = project.boost("doctor", path)

    assert done.returncode == 5
    assert "danger   task u               no broker named 'nowhere' is installed." in done.stdout
    assert "reached at" in done.stdout


def test_doctor_tells_of_a_password_in_the_projects_file(project: Project) -> None:
    """What is to stay secret doesn't belong into a repository; the finding shows it masked."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"memory://user:hunter2@127.0.0.1:{server.getsockname()[1]}"
        project.write("pyproject.toml", f'[tool.boost]\nstore = "{url}"\n')
        path = project.write("tasks.py", TASK)
        done = project.boost("doctor", path)

    assert "warning  secrets" in done.stdout
    assert "user:***@127.0.0.1" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_doctor_tells_of_too_few_open_files(project: Project) -> None:
    """A limit below what the tasks' concurrency may need is a warning with the command that raises it."""
    path = project.write("tasks.py", TASK.replace("('t')", "('t', concurrency=500)"))
    script = f"""
        import os, resource, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        os.execv(sys.executable, [sys.executable, "-m", "boost_core.cli", "doctor", {str(path)!r}])
    """

    text = project.python(script)

    assert "warning  open-files" in text
    assert "ulimit -n 2064" in text


def test_brokers_shows_who_can_do_what(project: Project) -> None:
    """A column a broker, a row a capability and limit; as JSON, an object a broker."""
    head = project.boost("brokers").stdout.splitlines()[0].split()
    rows = {row["broker"]: row for row in json.loads(project.boost("brokers", "-o", "json").stdout)}

    assert head[0] == "CAPABILITY"
    assert {"MEMORY", "SQLITE"} <= set(head)
    assert "persistent" not in rows["memory"]["capabilities"]
    assert {"persistent", "replace", "delay"} <= set(rows["sqlite"]["capabilities"])
    assert rows["sqlite"]["takeover"] == 2.0
