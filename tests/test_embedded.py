"""The default queue as its users meet it: one file a project, private, with limits, outliving its workers."""

from __future__ import annotations

import json
import signal
import stat
import sys
from pathlib import Path

import pytest
from projects import BOOST, NOTING, Project, eventually

TASK = NOTING + "@boost('job', results=True)\ndef job(text):\n    note(text)\n    return text\n"


def where(project: Project, folder: str) -> str:
    """Return which file commands in a folder of the project use."""
    shown = project.python(
        f"import os; os.chdir({folder!r})\nfrom boost_core import boost\n"
        "@boost('q')\ndef f(): ...\nprint(f.broker.where())"
    )
    return shown.strip()


def test_a_worker_on_a_file_of_another_project_says_whose_queue_it_serves(project: Project) -> None:
    """The queue is that of the folder it is started in, as for a script; once it is told, and only if they differ."""
    del project.environ["BOOST_SQLITE_PATH"]
    project.environ["XDG_DATA_HOME"] = str(project.folder / "home")
    for name in ("here", "there"):
        project.write(f"{name}/pyproject.toml", "")
    file = project.write("there/tasks.py", TASK)
    project.write("here/tasks.py", TASK)
    project.write("loose.py", TASK)
    here = project.folder / "here"
    files = ("../there/tasks.py", "tasks.py", "../loose.py")
    workers = [project.start(BOOST, "worker", name, "--burst", cwd=here) for name in files]

    assert [worker.wait(30) for worker in workers] == [0, 0, 0]
    warnings = [[line[32:] for line in project.log(worker).splitlines() if "WARNING" in line] for worker in workers]
    warning = (
        f"{file} belongs to the project {file.parent}, but the queue of {here} is used:"
        " start boost there, or set BOOST_SQLITE_PATH"
    )
    assert warnings == [[warning], [], []]


@pytest.mark.parametrize("mark", ["pyproject.toml", ".git/config"])
def test_each_project_has_one_file(project: Project, mark: str) -> None:
    """Whatever folder of a project a process starts in, it uses the same queue; another project has its own."""
    del project.environ["BOOST_SQLITE_PATH"]
    project.environ["XDG_DATA_HOME"] = str(project.folder / "home")
    for name in ("one", "two"):
        project.write(f"{name}/{mark}", "")
        project.write(f"{name}/deep/down/readme", "")

    files = [where(project, folder) for folder in ("one", "one/deep", "one/deep/down", "two/deep")]

    assert len(set(files[:3])) == 1
    assert files[3] != files[0]
    for file in set(files):
        path = Path(file)
        assert path.is_relative_to(project.folder / "home" / "boost")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_worker_finds_what_was_pushed_from_another_folder_of_its_project(project: Project) -> None:
    """Nothing has to be configured for that, and the worker's first line says which file it is."""
    del project.environ["BOOST_SQLITE_PATH"]
    project.environ["XDG_DATA_HOME"] = str(project.folder / "home")
    project.write("pyproject.toml", "")
    path = project.write("app/tasks.py", TASK)
    project.python("import os, sys; os.chdir('app'); sys.path.insert(0, '.')\nimport tasks\ntasks.job.push('found')")

    worked = project.boost("worker", path, "--burst")

    assert worked.returncode == 0, worked.stderr
    assert project.notes() == ["found"]
    assert f"broker sqlite ({where(project, '.')})" in worked.stderr.splitlines()[0]


def test_two_apps_in_a_process_keep_what_they_push(project: Project) -> None:
    """Whichever other process leaves meanwhile, a push that returned is there, also when its own process is killed."""
    path = project.write("tasks.py", TASK)
    project.write(
        "pusher.py",
        """
        import os, signal, subprocess, sys
        from boost_core import App
        from tasks import job
        other = App("other")
        @other.boost("other")
        def also(n): ...
        job.push("first")
        also.push(0)
        subprocess.run(sys.argv[1:], check=True)
        for n in range(10):
            job.push(str(n))
        os.kill(os.getpid(), signal.SIGKILL)
        """,
    )

    killed = project.start("pusher.py", sys.executable, BOOST, "call", path, "job", "neighbour")
    killed.wait(60)
    (row,) = json.loads(project.boost("queue", "list", path, "-o", "json").stdout)

    assert killed.returncode == -signal.SIGKILL, project.log(killed)
    assert row["ready"] == 12


def test_a_body_over_the_limit_is_refused_at_push(project: Project) -> None:
    """The error has both sizes and a remedy, nothing is stored, and the largest that fits arrives whole."""
    path = project.write("tasks.py", TASK)
    said = project.python(
        """
        import sys; sys.path.insert(0, ".")
        from tasks import job
        from boost_core.errors import BodyTooLarge
        job.push("")
        (empty,) = job.broker.peek("job", 1)
        job.clear()
        room = 15 * 1024 * 1024 - len(empty.body)
        try:
            job.push("x" * (room + 1))
        except BodyTooLarge as error:
            print(error)
        print(job.depth().ready)
        job.push("x" * room)
        print(room)
        """
    )

    worked = project.boost("worker", path, "--burst")

    room = said.splitlines()[-1]
    assert said == (
        "task 'job': the message is 15,728,641 bytes; broker 'sqlite' takes at most 15,728,640.\n"
        f"  Push a reference (a path, a key) instead of the data.\n0\n{room}\n"
    )
    assert worked.returncode == 0, worked.stderr
    assert [len(note) for note in project.notes()] == [int(room)]


def test_a_retry_waits_in_the_queue_and_not_in_a_worker(project: Project) -> None:
    """A worker with nothing else to do leaves in the meantime; whichever is there when it falls due runs it."""
    path = project.write(
        "tasks.py",
        NOTING
        + "@boost('job', retries=1, retry_delay=('1s', '1s'))\ndef job():\n"
        + "    note(f'attempt {current.attempt}')\n    if current.attempt == 1:\n        raise ValueError\n",
    )
    project.boost("call", path, "job")

    first = project.boost("worker", path, "--burst")
    (row,) = json.loads(project.boost("queue", "list", path, "-o", "json").stdout)
    second = project.worker(path)

    assert first.returncode == 0, first.stderr
    assert (row["ready"], row["delayed"], row["running"]) in ((0, 1, 0), (1, 0, 0))
    eventually(lambda: project.notes() == ["attempt 1", "attempt 2"])
    second.terminate()
    assert second.wait(20) == 0


def test_the_choice_of_durability_reaches_the_file(project: Project) -> None:
    """``durability="power"`` makes SQLite wait for the disk at each commit, the default at checkpoints only."""
    read = """
        from boost_core import boost
        @boost("q")
        def f(): ...
        with f.broker._file.locked() as connection:
            print(connection.execute("PRAGMA synchronous").fetchone()[0])
    """
    default = project.python(read)
    project.environ["BOOST_BROKER_SQLITE__DURABILITY"] = "power"

    assert (default, project.python(read)) == ("1\n", "2\n")


def test_a_url_names_the_file(project: Project) -> None:
    """What stands behind the scheme is its path; a broker that has neither URL nor file says so."""
    path = project.write("tasks.py", TASK)
    file = project.folder / "other place" / "q.db"

    pushed = project.boost("call", path, "job", "there", "--broker", f"sqlite://{file.parent}/q.db")
    shown = json.loads(project.boost("queue", "show", "job", "--broker", f"sqlite://{file}", "-o", "json").stdout)
    refused = project.boost("call", path, "job", "nowhere", "--broker", "memory://here")

    assert pushed.returncode == 0, pushed.stderr
    assert (shown["ready"], shown["where"]) == (1, str(file))
    assert (refused.returncode, refused.stderr) == (
        5,
        "BadOption: broker 'memory' takes no URL, such as 'memory://here'.\n  Give its name: memory\n",
    )


@pytest.mark.parametrize(("of_the_store", "level"), [(None, 2), ("process", 1)])
def test_results_are_as_durable_as_their_jobs(project: Project, of_the_store: str | None, level: int) -> None:
    """The store follows the broker's durability, unless it is told its own: 2 is SQLite's FULL, 1 its NORMAL."""
    project.environ["BOOST_BROKER_SQLITE__DURABILITY"] = "power"
    if of_the_store:
        project.environ["BOOST_STORE_SQLITE__DURABILITY"] = of_the_store
    project.write("tasks.py", TASK)

    said = project.python(
        "import sys; sys.path.insert(0, '.')\nimport tasks\n"
        "store = tasks.job.app.services.store(tasks.job.plan)\n"
        "with store._file.locked() as connection:\n"
        "    print(connection.execute('PRAGMA synchronous').fetchone()[0])"
    )

    assert int(said) == level
