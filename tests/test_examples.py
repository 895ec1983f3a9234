"""The main job runs as anybody would run it, and its check of itself can fail."""

from __future__ import annotations

import importlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from projects import Project, eventually

INDEX = Path(__file__).parents[1] / "examples" / "stdlib_index"
STDLIB = Path(sysconfig.get_paths()["stdlib"])


def library(folder: Path, *names: str) -> Path:
    """Return a folder with parts of the standard library, and two files that don't parse."""
    root = folder / "library"
    root.mkdir()
    for name in names:
        for path in STDLIB.glob(name):
            if path.is_dir():
                shutil.copytree(path, root / path.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, root)
    (root / "old.py").write_text('print "no function"\n')
    (root / "torn.py").write_bytes(b"# \xe9\n")
    return root


def environment(project: Project) -> dict[str, str]:
    """Return a project's environment without a queue of its own: the demo makes one, in the project's folder."""
    environ = {name: value for name, value in project.environ.items() if not name.startswith("BOOST_")}
    return {**environ, "TMPDIR": str(project.folder)}


def changed(project: Project, name: str, true: str, false: str) -> Path:
    """Return a copy of the demo in whose file ``name`` one line is another."""
    copy = project.folder / "demo"
    shutil.copytree(INDEX, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / name).read_text()
    assert text.count(true) == 1
    (copy / name).write_text(text.replace(true, false))
    return copy / "demo.py"


def on_a_terminal(command: list[str], environ: dict[str, str]) -> tuple[int, str]:
    """Run a command whose output is a terminal; return its exit code and what the terminal was sent."""
    screen, terminal = pty.openpty()
    process = subprocess.Popen(command, env=environ, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    sent = b""
    try:
        while chunk := _read(screen):
            sent += chunk
        return process.wait(), sent.decode().replace("\r\n", "\n")
    finally:
        process.kill()
        os.close(screen)


def _read(screen: int) -> bytes:
    try:
        return os.read(screen, 4096)
    except OSError:  # Linux: the other side is closed
        return b""


@pytest.mark.timeout(180)
def test_the_main_job_is_complete_in_spite_of_a_killed_worker(project: Project) -> None:
    """Three workers index real sources, one is killed with -9; the report says what it held, all checks are ok.

    On a terminal a bar shows how far it is.
    """
    root = library(project.folder, "*.py", "asyncio", "email", "json", "unittest", "xml")
    command = [sys.executable, str(INDEX / "demo.py"), str(root)]

    code, text = on_a_terminal(command, environment(project))

    assert code == 0, text
    checks = re.findall(r"^  (ok  |FAIL)  (.*)$", text, re.MULTILINE)
    assert [mark for mark, _ in checks] == ["ok  "] * 4
    killed = re.search(
        r"^Worker (\d+) was killed with -9 at (\d+)%, in the middle of (\d+) jobs:\n((?:  \S+\n)*)", text, re.MULTILINE
    )
    assert killed is not None, text
    held = killed[4].split()
    assert 50 <= int(killed[2]) < 100
    assert len(held) == int(killed[3]) >= 1
    assert all((root / path).is_file() for path in held)
    assert re.search(r"^  taken over by others after \d+\.\d\d to \d+\.\d\d s$", text, re.MULTILINE)
    assert "Dead letters (2):\n  old.py: does not parse: " in text
    assert "\n  torn.py: does not parse: " in text
    count = len(list(root.rglob("*.py")))
    assert f"{count} jobs in " in text
    bars = re.findall(r"\r\[(#* *)\] +(\d+)%  ", text)
    assert len(bars) > 3
    assert {len(bar) for bar, _ in bars} == {40}
    assert bars[-1] == ("#" * 40, "100")
    assert list(Path(project.folder).glob("boost-demo-*")) == []


@pytest.mark.timeout(180)
def test_a_wrong_result_fails_the_main_job(project: Project) -> None:
    """Where a worker's result differs from the plain run's, the demo says which check fails and ends with 1.

    Into a pipe it draws no bar.
    """
    root = library(project.folder, "json")
    true = "        return index_source(root, path)\n"
    false = '        return {**index_source(root, path), "lines": 1}\n'
    demo = changed(project, "tasks.py", true, false)

    command = [sys.executable, str(demo), str(root)]
    done = subprocess.run(command, env=environment(project), capture_output=True, text=True, timeout=150, check=False)

    assert done.returncode == 1, done.stderr
    assert "  FAIL  every result is identical to the plain run's\n  ok    nothing is missing\n" in done.stdout
    assert " INFO " in done.stdout.partition("FAIL")[2]  # the workers' log, to find out why
    assert "\r" not in done.stdout
    assert "[#" not in done.stdout


LOSE_ONE = """
        with contextlib.closing(__import__("sqlite3").connect(folder / "queue.db")) as connection, connection:
            connection.execute("DELETE FROM ready WHERE place = (SELECT min(place) FROM ready)")
"""


@pytest.mark.timeout(180)
def test_a_lost_message_fails_the_main_job(project: Project) -> None:
    """Where nothing is ever heard of a job, the demo names its file and ends with 1."""
    root = library(project.folder, "json")
    then = '        with log.open("wb") as output:\n'
    demo = changed(project, "demo.py", then, LOSE_ONE + then)

    command = [sys.executable, str(demo), str(root)]
    done = subprocess.run(command, env=environment(project), capture_output=True, text=True, timeout=150, check=False)

    assert done.returncode == 1, done.stderr
    assert "\nMissing (1):\n  json/__init__.py\n" in done.stdout
    assert "  FAIL  nothing is missing\n" in done.stdout


@pytest.mark.timeout(180)
def test_the_main_job_leaves_the_users_own_queue_alone(project: Project) -> None:
    """Neither the environment nor the project it is started in leads it to a queue or settings of theirs."""
    root = library(project.folder, "json")
    project.write("mine/pyproject.toml", '[tool.boost]\nbroker = "nonesuch"\nnamespace = "mine"\n')
    mine = project.folder / "mine"
    environ = {**environment(project), "BOOST_SQLITE_PATH": str(mine / "queue.db"), "BOOST_POOL": "nonesuch"}

    command = [sys.executable, str(INDEX / "demo.py"), str(root)]
    done = subprocess.run(command, cwd=mine, env=environ, capture_output=True, text=True, timeout=150, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in mine.iterdir()] == ["pyproject.toml"]
    assert list(project.folder.glob("boost-demo-*")) == []


@pytest.mark.timeout(180)
def test_ctrl_c_ends_the_main_job(project: Project) -> None:
    """It says so in one line, and neither workers nor files are left behind."""
    go = project.folder / "go"
    line = "        return index_source(root, path)\n"
    wait = f"        while not Path({str(go)!r}).exists():\n            time.sleep(0.01)\n"
    demo = changed(project, "tasks.py", line, wait + line)
    running = subprocess.Popen(
        [sys.executable, str(demo), str(library(project.folder, "json"))],
        env=environment(project),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    logs = partial(project.folder.glob, "boost-demo-*/workers.log")
    eventually(lambda: [log.read_text().count(" worker ") for log in logs()] == [3])

    os.killpg(running.pid, signal.SIGINT)
    go.touch()
    _, said = running.communicate(timeout=60)

    assert (running.returncode, said) == (130, "\nstopped before the end; nothing is left behind\n")
    assert list(project.folder.glob("boost-demo-*")) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)


def test_a_folder_without_sources_is_told(project: Project) -> None:
    """There is nothing to prove then, and no worker is started."""
    command = [sys.executable, str(INDEX / "demo.py"), str(project.folder)]
    done = subprocess.run(command, env=environment(project), capture_output=True, text=True, timeout=50, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"there are no source files in {project.folder.resolve()}\n"


# --- the check itself ----------------------------------------------------------------------------------------


@pytest.fixture
def demo(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """Yield the demo as a module."""
    monkeypatch.syspath_prepend(str(INDEX))
    yield importlib.import_module("demo")
    for name in ("demo", "ledger"):
        sys.modules.pop(name, None)


KILLED, ALIVE = 7, 8


def complete(demo: ModuleType) -> dict[str, Any]:
    """Return what ``verdict`` is given after a run in which all went well.

    One file didn't parse; two jobs ran twice: one that the killed worker was in, and the last one that it ended.
    """
    ledger = importlib.import_module("ledger").Ledger()
    for job, processes in {"1": [ALIVE], "2": [KILLED, ALIVE], "3": [ALIVE]}.items():
        ledger.starts[job] = [(float(at), pid) for at, pid in enumerate(processes)]
        ledger.ends[job] = [(5.0, ALIVE)]
    for number in range(200):
        ledger.starts[f"old {number}"] = [(-9.0, KILLED)]
        ledger.ends[f"old {number}"] = [(number / 1000 - 9, KILLED)]
    ledger.starts["old 199"].append((2.0, ALIVE))
    results = {"a.py": {"lines": 1}, "b.py": {"lines": 2}}
    run = demo.Run(
        results=dict(results),
        dead={"c.py": "does not parse"},
        jobs={"1": "a.py", "2": "b.py", "3": "c.py"},
        seconds=1.0,
        killed_pid=KILLED,
        killed_at=0.5,
        killed_at_share=0.5,
    )
    return {"run": run, "expected": results, "unparsable": {"c.py"}, "ledger": ledger}


FAULTS = {
    "a value changed": (lambda it: it["run"].results.update({"a.py": {"lines": 9}}), ["identical"]),
    "a result lost": (lambda it: it["run"].results.pop("a.py"), ["identical", "missing"]),
    "a result too many": (lambda it: it["run"].results.update({"d.py": {}}), ["identical", "missing"]),
    "a dead letter lost": (lambda it: it["run"].dead.pop("c.py"), ["missing", "parse"]),
    "a dead letter of a good file": (
        lambda it: it["run"].dead.update({"b.py": it["run"].results.pop("b.py")}),
        ["identical", "parse"],
    ),
    "a job run twice that the killed worker had long ended": (
        lambda it: it["ledger"].starts["old 100"].append((3.0, ALIVE)),
        ["twice"],
    ),
    "a job of a living worker run twice": (lambda it: it["ledger"].starts["1"].append((3.0, ALIVE)), ["twice"]),
}


def test_a_complete_run_is_found_complete(demo: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """What the killed worker held may run twice; nothing else is amiss."""
    assert demo.verdict(**complete(demo)) == 0
    out = capsys.readouterr().out
    assert out.startswith("\nCheck (2 jobs ran twice; the dead worker was in 1, had just ended 1):\n")
    assert (out.count("  ok    "), out.count("FAIL")) == (4, 0)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(demo: ModuleType, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    """Each check can fail: exactly those that the fault concerns."""
    given = complete(demo)
    plant, failing = FAULTS[fault]
    plant(given)

    assert demo.verdict(**given) == 1

    failed = re.findall(r"^  FAIL  (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert len(failed) == len(failing)
    assert all(word in text for word, text in zip(failing, failed, strict=True))


def test_the_ledger_tells_what_a_killed_worker_held(demo: ModuleType, tmp_path: Path) -> None:
    """What it had started and not ended, and when another process started it; a torn last line is what a kill leaves."""
    notes = tmp_path / "ledger.jsonl"
    lines = [
        ("start", "held", KILLED, 1.0),
        ("start", "done", KILLED, 1.0),
        ("end", "done", KILLED, 2.0),
        ("start", "held", ALIVE, 3.5),
    ]
    text = "".join(f'{{"event": "{e}", "job": "{job}", "pid": {pid}, "at": {at}}}\n' for e, job, pid, at in lines)
    notes.write_text(text + '{"event": "sta')

    ledger = importlib.import_module("ledger").Ledger.read(notes)

    assert ledger.unfinished_by(KILLED) == {"held"}
    assert ledger.touched_by(KILLED) == {"held", "done"}
    assert ledger.run_twice() == {"held"}
    assert ledger.taken_over_after(KILLED, 2.0) == [1.5]
