"""Situations that a command may find in a project: bad settings, files, databases and plugins."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from boost_core.registry import hints
from boost_core.registry.registry import Registry
from projects import Project


def absent(kind: str) -> tuple[str, str]:
    """Return the name and distribution of a plugin of this project that isn't installed here."""
    there = Registry().installed(kind)
    return next((name, its) for (of, name), its in hints.PLUGINS.items() if of == kind and name not in there)


def absent_option() -> tuple[str, str, str]:
    """Return an option of a control that isn't installed here, with the control and its distribution."""
    there = Registry().installed("control")
    return next((option, name, its) for option, (name, its) in hints.OPTIONS.items() if name not in there)


SITUATIONS: dict[str, Callable[[Project], object]] = {
    "a task file": lambda project: None,
    "a broker that isn't installed": lambda project: project.environ.update(BOOST_BROKER=absent("broker")[0]),
    "a misspelt broker": lambda project: project.environ.update(BOOST_BROKER="sqlit"),
    "an option that doesn't exist": lambda project: project.environ.update(BOOST_BROKER_SQLITE__LEASES="1s"),
    "an option that can't be": lambda project: project.environ.update(BOOST_BROKER_SQLITE__LEASE="soon"),
    "an app that can't be": lambda project: project.environ.update(BOOST_DRAIN_TIMEOUT="soon"),
    "a misspelt task option": lambda project: project.write(
        "tasks.py", "from boost_core import boost\n@boost('f', retrys=1)\ndef f(): ...\n"
    ),
    "an option of a package": lambda project: project.write(
        "tasks.py", f"from boost_core import boost\n@boost('f', {absent_option()[0]}=1)\ndef f(): ...\n"
    ),
    "a misspelt pool": lambda project: project.write(
        "tasks.py", "from boost_core import boost\n@boost('f', pool='thread')\ndef f(): ...\n"
    ),
    "a file that doesn't parse": lambda project: project.write("tasks.py", "x = 1\ndef f(:\n"),
    "a file that fails": lambda project: project.write("tasks.py", "x = 1\nprint(x.y)\n"),
    "a file that exits": lambda project: project.write("tasks.py", "import sys\nsys.exit('no configuration')\n"),
    "a read-only database": lambda project: database(project).chmod(0o400),
    "a read-only folder": lambda project: (database(project).unlink(), database(project).parent.chmod(0o500)),
    "a newer database": lambda project: change(project, "PRAGMA user_version = 9"),
    "somebody else's database": lambda project: change(project, "PRAGMA application_id = 99"),
    "no database": lambda project: database(project).write_bytes(b"Dear diary, " * 100),
    "a read-only store": lambda project: read_only_store(project),
    "a plugin that fails": lambda project: install(project, "    raise RuntimeError('on fire')\n"),
    "a broken broker": lambda project: provide(project, "acme", "import absent_client"),
    "a broker of another api": lambda project: provide(project, "acme", SPEC.format(api=2)),
    "two brokers of a name": lambda project: [provide(project, name, SPEC.format(api=1)) for name in ("acme", "zeta")],
}

SPEC = """
from boost_core.plugin import BrokerSpec, hookimpl

@hookimpl
def boost_brokers():
    return [BrokerSpec(name="acme", factory="absent:Broker", api={api})]
"""


def database(project: Project) -> Path:
    """Return a project's queue, which exists."""
    path = Path(project.environ["BOOST_SQLITE_PATH"])
    if not path.exists():
        assert project.boost("queue", "show", "echo").returncode == 0
    return path


def change(project: Project, statement: str) -> None:
    """Let somebody else write to a project's queue."""
    connection = sqlite3.connect(database(project))
    connection.execute(statement)
    connection.close()


def read_only_store(project: Project) -> None:
    """Let results be kept where nobody may write."""
    path = project.write("results.db", "")
    path.chmod(0o400)
    project.environ["BOOST_STORE_SQLITE__PATH"] = str(path)


def distribute(project: Project, name: str, point: str, text: str, needs: str = "") -> None:
    """Let a project's processes find a module ``<name>_boost`` as if a distribution of it were installed."""
    group, key = point.split(":")
    project.write(f"{name}_boost.py", text)
    facts = f"Metadata-Version: 2.1\nName: {name}-boost\nVersion: 1.2.3\n{needs}"
    project.write(f"{name}_boost-1.2.3.dist-info/METADATA", facts)
    project.write(f"{name}_boost-1.2.3.dist-info/entry_points.txt", f"[boost.{group}]\n{key} = {name}_boost\n")
    project.environ["PYTHONPATH"] = str(project.folder)


def install(project: Project, body: str) -> None:
    """Let a project have a plugin with commands."""
    hook = "from boost_core.plugin import hookimpl\n@hookimpl\ndef boost_commands(group):\n"
    distribute(project, "burning", "plugins:burning", hook + body)


def provide(project: Project, name: str, text: str) -> None:
    """Let a project have a distribution that provides the broker ``acme``, and use that broker."""
    distribute(project, name, "brokers:acme", text, "Requires-Dist: absent-client>=2.6\n")
    project.environ["BOOST_BROKER"] = "acme"
