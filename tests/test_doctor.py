"""``boost doctor`` and ``boost brokers``, as real processes."""

from __future__ import annotations

import json
import socket

from projects import Project
from situations import distribute

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


def test_doctor_uses_the_store_of_tasks_with_results(project: Project) -> None:
    """A store that can be used has a line; one that can't, for it ends each worker at its start, is a danger."""
    path = project.write("tasks.py", TASK.replace("'t'", "'t', results=True"))

    sound = project.boost("doctor", path)
    project.environ["BOOST_STORE_SQLITE__PATH"] = "/proc/boost/results.db"
    broken = project.boost("doctor", path)

    assert "ok       store sqlite         reached, written and read\n" in sound.stdout
    assert (sound.returncode, broken.returncode) == (0, 5)
    line = next(line for line in broken.stdout.splitlines() if "store sqlite" in line)
    assert line.startswith("danger   store sqlite         store 'sqlite': /proc/boost/results.db can't be used")
    assert "ok       open-files" in broken.stdout


def test_doctor_uses_the_projects_own_store(project: Project) -> None:
    """Without a target the store that the project names is looked at too, and no other."""
    assert "store" not in project.boost("doctor").stdout
    project.environ["BOOST_STORE"] = "sqlite:///proc/boost/results.db"

    done = project.boost("doctor")

    assert done.returncode == 5
    assert "danger   store sqlite         store 'sqlite': /proc/boost/results.db can't be used" in done.stdout


def test_doctor_tells_a_broker_that_went_away_from_a_check_that_fails(project: Project) -> None:
    """A check whose broker is gone is a danger with the remedy; one that fails by itself is a warning that says so."""
    checks = """
        from boost_core.plugin import BrokerUnavailable, Check, hookimpl
        @hookimpl
        def boost_checks():
            return [Check(name="gone", run="vet_boost:gone"), Check(name="faulty", run="vet_boost:faulty")]
        def gone(subject):
            yield from ()
            raise BrokerUnavailable("acme", "the server refuses connections", "Start it.")
        def faulty(subject):
            raise ValueError("what a slip")
    """
    distribute(project, "vet", "plugins:vet", checks)

    done = project.boost("doctor", project.write("tasks.py", TASK))

    assert done.returncode == 5
    assert "danger   gone                 broker 'acme': the server refuses connections\n" in done.stdout
    assert " Start it.\n" in done.stdout
    assert "warning  faulty               the check itself failed: ValueError: what a slip\n" in done.stdout


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


def test_doctor_tells_of_missing_time_zones(project: Project) -> None:
    """Neither the system nor an installed package knows time zones: a warning names what to install."""
    path = project.write("tasks.py", TASK)
    project.write("tzdata/__init__.py", "")  # in the way of the package, where that is installed
    project.environ.update(PYTHONTZPATH="", PYTHONPATH=str(project.folder))

    text = project.boost("doctor", path).stdout

    assert "warning  time-zones           no time zones are known on this machine" in text
    assert "Install them: tzdata, of the system or by pip." in text


def test_brokers_shows_who_can_do_what(project: Project) -> None:
    """A column a broker, a row a capability and limit; as JSON, an object a broker."""
    head = project.boost("brokers").stdout.splitlines()[0].split()
    rows = {row["broker"]: row for row in json.loads(project.boost("brokers", "-o", "json").stdout)}

    assert head[0] == "CAPABILITY"
    assert {"MEMORY", "SQLITE"} <= set(head)
    assert "persistent" not in rows["memory"]["capabilities"]
    assert {"persistent", "replace", "delay"} <= set(rows["sqlite"]["capabilities"])
    assert rows["sqlite"]["takeover"] == 2.0
