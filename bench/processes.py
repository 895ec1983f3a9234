"""Real worker processes in a folder of their own, for figures that need them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from boost_core import default_app

JOBS_FILE = Path(__file__).with_name("jobs.py")


class Place:
    """A private queue file, the jobs' notes, and the workers on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes_path, self.go_path = folder / "notes.txt", folder / "go"
        self.workers: list[subprocess.Popen[bytes]] = []
        default_app().close()  # whatever it has open is of an earlier place
        os.environ["BOOST_SQLITE_PATH"] = str(folder / "queue.db")
        os.environ["BENCH_NOTES"], os.environ["BENCH_GO"] = str(self.notes_path), str(self.go_path)

    def worker(self, file: Path = JOBS_FILE) -> subprocess.Popen[bytes]:
        """Start a worker, on the shared tasks or those of a file; return once it says that it is ready."""
        log = self.folder / f"worker{len(self.workers)}.log"
        with log.open("wb") as output:
            command = [sys.executable, "-m", "boost_core.cli", "worker", str(file)]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        self.workers.append(process)
        until(lambda: b"queues" in log.read_bytes(), "a worker to be ready")
        return process

    def notes(self) -> list[str]:
        """Return what jobs have noted so far; a torn last line is left out."""
        if not self.notes_path.exists():
            return []
        return [line for line in self.notes_path.read_text().splitlines(keepends=True) if line.endswith("\n")]

    def await_notes(self, count: int, what: str) -> None:
        """Return once jobs have written more than ``count`` notes."""
        until(lambda: len(self.notes()) > count, what)

    def clear(self) -> None:
        """Forget the notes."""
        self.notes_path.unlink(missing_ok=True)
        self.go_path.unlink(missing_ok=True)

    def end(self) -> None:
        """End all workers."""
        for process in self.workers:
            if process.poll() is None:
                process.terminate()
        for process in self.workers:
            try:
                process.wait(timeout=40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def place() -> Iterator[Place]:
    """Yield a place that leaves nothing behind."""
    with tempfile.TemporaryDirectory(prefix="boost-bench-") as folder:
        its = Place(Path(folder))
        try:
            yield its
        finally:
            its.end()


def until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Return once ``condition()`` holds; raise ``TimeoutError`` that says for what was waited."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            message = f"waited {seconds:g} s for {what}"
            raise TimeoutError(message)
        time.sleep(0.002)
