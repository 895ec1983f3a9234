"""What importing and decorating do to a process: next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PLUGINS = sorted(Path(__file__).parents[1].glob("plugins/*/src/*/plugin.py"))

WATCHED = """
import _thread, json, sys

acts, listening = [], True
LISTENED = ("socket.", "subprocess.", "os.", "shutil.", "tempfile.", "sqlite3.", "fcntl.", "mmap.")

def hear(event, arguments):
    if listening and event == "open":
        path, mode, flags = arguments
        reads_code = str(path).endswith((".py", ".pyc", ".so")) and not flags & 3  # O_RDONLY is 0 in the lowest two bits
        if not reads_code:
            acts.append(f"open {path} {mode}")
    elif listening and event.startswith(LISTENED) and event not in ("os.listdir", "os.scandir"):
        acts.append(f"{event} {arguments}")

def noting(start):
    def noted(*given, **more):
        acts.append("thread")
        return start(*given, **more)
    return noted

for name in {"start_new_thread", "start_joinable_thread"} & set(vars(_thread)):
    setattr(_thread, name, noting(getattr(_thread, name)))  # Python 3.11 has no event for it
exec(sys.argv[1])
before = set(sys.modules)
sys.addaudithook(hear)
exec(sys.argv[2])
listening = False
with open(sys.argv[3], "w") as file:
    json.dump({"acts": acts, "modules": sorted(set(sys.modules) - before)}, file)
"""
"""Runs a piece of Python, and writes down what it did that others could notice."""


def acts_of(folder: Path, code: str, before: str = "") -> dict[str, Any]:
    """Run ``code`` after ``before`` in a fresh process, in a project of its own; return what it did and loaded."""
    (folder / "pyproject.toml").write_text("[tool.boost]\nbroker = 'sqlite'\n")
    report = folder / "report.json"
    # -B: the caches that Python itself writes beside modules are no act of theirs.
    command = [sys.executable, "-B", "-W", "error", "-c", WATCHED, before, code, str(report)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in folder.iterdir()) == ["pyproject.toml", "report.json"]
    return json.loads(report.read_text())


def packages(modules: list[str]) -> set[str]:
    """Return the top-level packages of modules, the standard library's left out."""
    return {name.partition(".")[0] for name in modules} - sys.stdlib_module_names


def test_the_watch_sees_what_it_is_there_for(tmp_path: Path) -> None:
    """Reading and writing files, sockets, threads, processes and databases are acts; so none goes unseen below."""
    code = (
        "import pathlib, socket, sqlite3, subprocess, threading\n"
        "pathlib.Path('pyproject.toml').read_text()\n"
        "with open('report.json', 'w'): pass\n"
        "socket.socket().close()\n"
        "sqlite3.connect(':memory:').close()\n"
        "thread = threading.Thread(target=print, kwargs={'end': ''}); thread.start(); thread.join()\n"
        "subprocess.run(['true'])\n"
    )

    done = acts_of(tmp_path, code)

    seen = {act.partition(" ")[0] for act in done["acts"]}
    assert {"socket.__new__", "sqlite3.connect", "subprocess.Popen", "thread"} <= seen
    opened = [act.split()[1:] for act in done["acts"] if act.startswith("open ")]
    assert [["pyproject.toml", "r"], ["report.json", "w"]] == [
        one for one in opened if len(one) == 2 and one[1] in "rw"
    ]


def test_importing_boost_does_nothing_else(tmp_path: Path) -> None:
    """``import boost_core`` touches no file, socket or thread, prints nothing, and loads neither clients nor asyncio."""
    done = acts_of(tmp_path, "import boost_core")

    assert done["acts"] == []
    assert packages(done["modules"]) == {"boost_core"}
    assert not {"asyncio", "concurrent", "logging", "multiprocessing", "socket", "sqlite3"} & set(done["modules"])


DECORATED = {
    "nothing said": "@boost_core.boost()\ndef job(n: int) -> int: ...",
    "a coroutine function": "@boost_core.boost('job')\nasync def job(n: int) -> int: ...",
    "a broker of another package": "@boost_core.boost('job', broker='kafka')\ndef job(n: int) -> int: ...",
    "a broker on another machine": "@boost_core.boost('job', broker='redis://nowhere.invalid')\ndef job(): ...",
    "everything": (
        "app = boost_core.App('own', broker='sqlite', store='sqlite', namespace='staging')\n"
        "@app.boost('job', pool='asyncio', results=True, retries=2, timeout=3, max_age=60, unheard_of=1)\n"
        "def job(n: int) -> int: ..."
    ),
}


@pytest.mark.parametrize("how", DECORATED)
def test_decorating_a_function_only_records_it(tmp_path: Path, how: str) -> None:
    """No setting is read, no plugin looked up or loaded, nothing connected, whatever broker and options it names."""
    done = acts_of(tmp_path, f"import boost_core\n{DECORATED[how]}")

    assert done["acts"] == []
    own = {"attr", "attrs", "boost_core", "importlib_metadata", "lazy_importer", "msgspec", "pluggy"}
    assert packages(done["modules"]) <= own | {"typing_extensions"}
    assert not {"asyncio", "multiprocessing", "socket", "sqlite3", "ssl"} & set(done["modules"])


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.parent.name)
def test_a_plugins_light_module_loads_no_client(tmp_path: Path, path: Path) -> None:
    """``plugin.py`` brings in itself and no more than attrs, boost_core.plugin and parts of that, and does nothing."""
    package = path.parent.name

    done = acts_of(tmp_path, f"import {package}.plugin", before="import attrs, boost_core.plugin")

    brought = [name for name in done["modules"] if not name.startswith("boost_core.plugin.")]
    assert (done["acts"], brought) == ([], [package, f"{package}.plugin"])


def test_every_plugin_of_this_repository_is_looked_at() -> None:
    """Each folder below plugins/ has the one light module that the test above imports."""
    folders = sorted(Path(__file__).parents[1].glob("plugins/*/pyproject.toml"))

    assert [path.parents[2].name for path in PLUGINS] == [folder.parent.name for folder in folders]
    assert len(PLUGINS) >= 3
