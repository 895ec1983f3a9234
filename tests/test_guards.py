"""What must never happen: hook calls while jobs run, tests that are skipped, modules without an end."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from boost_core import App, Drop, Requeue, Retry
from boost_core.errors import JobFailed

ROOT = Path(__file__).parents[1]


# --- hooks -------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """Yield an app on each broker of this repository."""
    monkeypatch.setenv("BOOST_SQLITE_PATH", str(tmp_path / "queue.db"))
    app = App("guarded", broker=request.param, store=request.param)
    yield app
    app.close()


def declare(app: App) -> Any:
    """Declare a task a pool that ends as it is told; return a function that pushes one and returns how it ended."""

    def end(how: str, attempt: list[int]) -> str:
        steers = {"retry": Retry(0.0), "requeue": Requeue(0.0), "drop": Drop("dropped")}
        attempt.append(1)
        if how in ("retry", "requeue") and len(attempt) > 1:
            return how
        if how in steers:
            raise steers[how]
        if how == "fail":
            raise ValueError(how)
        return how

    attempts: dict[str, list[int]] = {}

    @app.boost("threads", results=True, retries=1, timeout=30, max_age=60)
    def plain(how: str, number: int) -> str:
        return end(how, attempts.setdefault(f"plain {how} {number}", []))

    @app.boost("asyncio", results=True, retries=1, timeout=30, max_age=60)
    async def coroutine(how: str, number: int) -> str:
        return end(how, attempts.setdefault(f"coroutine {how} {number}", []))

    return plain, coroutine


ENDS = ("return", "retry", "requeue", "fail", "drop")


def ended(job: Any) -> str:
    """Return a job's value, or how it ended without one."""
    try:
        return str(job.get(timeout=20))
    except JobFailed as failed:
        return failed.reason


async def push_from_a_loop(tasks: Any, number: int) -> list[Any]:
    """Push every end of every task by apush, and by apush_many."""
    jobs = [await task.apush(how, number) for task in tasks for how in ENDS]
    return jobs + [job for task in tasks for job in await task.apush_many((how, number + 1) for how in ENDS)]


def test_no_hook_is_called_while_jobs_are_pushed_run_and_settled(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """After the first job of each task pluggy is silent: hooks assemble, and never run per message.

    Whatever a job comes to, in threads and on asyncio, pushed one by one, in batches, with options or from a loop.
    """
    tasks = declare(app)
    with app.worker():
        for task in tasks:
            assert task.push("return", 0).get(timeout=20) == "return"
        with app.registry.forbid_hooks():
            jobs = [task.push(how, 1) for task in tasks for how in ENDS]
            jobs += [job for task in tasks for job in task.push_many((how, 2) for how in ENDS)]
            jobs += [task.options(timeout=20, retries=2).push(how, 3) for task in tasks for how in ENDS]
            jobs += asyncio.run(push_from_a_loop(tasks, 4))
            ends = [ended(job) for job in jobs]

    assert ends == ["return", "retry", "requeue", "failed", "dropped"] * 2 * 5
    assert "no hook may be" not in "".join(record.getMessage() + str(record.exc_info) for record in caplog.records)


def test_a_hook_call_would_be_seen(app: App) -> None:
    """Where hooks are forbidden one that is called raises by name; so the test above can fail."""
    (task, _) = declare(app)
    with (
        app.registry.forbid_hooks(),
        pytest.raises(AssertionError, match="boost_task_declared was called where no hook"),
    ):
        task.push("return", 0)


# --- skips -------------------------------------------------------------------------------------------------

SKIPPING = {
    "a mark": "import pytest\n@pytest.mark.skip(reason='no server')\ndef test_it(): ...\n",
    "a condition": "import pytest\n@pytest.mark.skipif(True, reason='no server')\ndef test_it(): ...\n",
    "a call": "import pytest\ndef test_it():\n    pytest.skip('no server')\n",
    "a fixture": "import pytest\n@pytest.fixture\ndef a():\n    pytest.skip('no server')\ndef test_it(a): ...\n",
    "a missing module": "import pytest\npytest.importorskip('no_such_client')\ndef test_it(): ...\n",
    "a module": "import pytest\npytest.skip('no server', allow_module_level=True)\ndef test_it(): ...\n",
    "unittest": "import unittest\nclass TestIt(unittest.TestCase):\n    @unittest.skip('no server')\n    def test_it(self): ...\n",
}


def run_tests(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a test file under the rules of this repository."""
    shutil.copy(ROOT / "conftest.py", folder)
    (folder / "test_it.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize("how", SKIPPING)
def test_a_skipped_test_fails_the_run(tmp_path: Path, how: str) -> None:
    """However a test is skipped, the run fails and says why: nothing shrinks quietly."""
    done = run_tests(tmp_path, SKIPPING[how])

    assert done.returncode in (1, 2), done.stdout
    assert "a test that is skipped proves nothing; mend what it lacks, or take it out" in done.stdout
    assert ("no_such_client" if how == "a missing module" else "no server") in done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1]


def test_other_tests_end_as_they_do(tmp_path: Path) -> None:
    """The rule leaves passes, expected failures and failures alone."""
    text = (
        "import pytest\ndef test_good(): ...\n"
        "@pytest.mark.xfail(reason='known', strict=True)\ndef test_known():\n    assert False\n"
    )
    fine = run_tests(tmp_path, text)
    broken = run_tests(tmp_path, text + "def test_bad():\n    assert False\n")

    assert (fine.returncode, broken.returncode) == (0, 1)
    assert "1 passed, 1 xfailed" in fine.stdout
    assert "1 failed, 1 passed, 1 xfailed" in broken.stdout


def test_no_module_is_longer_than_a_reader_can_bear() -> None:
    """400 lines at most: what grows beyond is two nouns by then, and is split."""
    folders = ("core", "plugins", "tools", "bench", "examples")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]

    long = {path.name: lines for path in sources if "tests" not in path.parts and (lines := _lines(path)) > 400}

    assert long == {}


def _lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())
