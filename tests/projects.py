"""Projects in folders of their own, and real ``boost`` processes in them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def eventually(condition: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Return what ``condition()`` gives once it is true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        threading.Event().wait(0.01)
    raise AssertionError(f"never became true: {condition}")


BOOST = str(Path(sys.executable).with_name("boost"))


class Project:
    """A folder with task files, a queue of its own, and the processes that work on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BOOST_")},
            "BOOST_SQLITE_PATH": str(folder / "data" / "queue.db"),
            "NOTES": str(folder / "notes.txt"),
            "PYTHONUNBUFFERED": "1",
        }
        self.processes: list[subprocess.Popen[str]] = []

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project and return its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def start(self, *command: object, **given: Any) -> subprocess.Popen[str]:
        """Start a Python process with arguments; its output goes to ``<n>.log`` in the folder."""
        log = (self.folder / f"{len(self.processes)}.log").open("w")
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=given.pop("cwd", self.folder),
            env=self.environ,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            **given,
        )
        log.close()
        self.processes.append(process)
        return process

    def worker(self, *arguments: object) -> subprocess.Popen[str]:
        """Start ``boost worker``."""
        return self.start(BOOST, "worker", *arguments)

    def log(self, process: subprocess.Popen[str]) -> str:
        """Return what a process has printed so far."""
        return (self.folder / f"{self.processes.index(process)}.log").read_text()

    def boost(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a ``boost`` command to its end."""
        command = [sys.executable, BOOST, *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60, check=False
        )

    def python(self, text: str) -> str:
        """Run a piece of Python to its end and return what it printed."""
        command = [sys.executable, "-c", textwrap.dedent(text)]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def notes(self) -> list[str]:
        """Return the lines that jobs have noted down."""
        path = self.folder / "notes.txt"
        return path.read_text().splitlines() if path.exists() else []

    def end(self) -> None:
        """Leave no process behind."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


NOTING = """
import os, time
from boost_core import boost, current

def note(text):
    with open(os.environ["NOTES"], "a") as file:
        file.write(f"{text}\\n")
"""
"""Head of a task file whose jobs note down what they do, for the test to read."""
