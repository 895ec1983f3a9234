"""The packages as users get them: wheels in an empty environment run what the README shows."""

from __future__ import annotations

import email
import re
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
from projects import eventually
from repository import ROOT

sys.path.insert(0, str(ROOT / "tools"))

from isolation.room import Room  # noqa: E402 - found by the line above
from isolation.wheels import build_wheel  # noqa: E402
from sync.packages import find_packages  # noqa: E402

pytestmark = pytest.mark.timeout(120)

README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = ("boost-core", "boost-broker-sqlite")


@attrs.frozen
class Elsewhere:
    """An environment that holds some wheels and what they declare, and a folder with the README's examples."""

    room: Room
    wheels: dict[str, Path]
    folder: Path

    def boost(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the installed ``boost`` command beside the examples."""
        return self.room.run(str(self.room.folder / "bin" / "boost"), *arguments, cwd=self.folder, timeout=60)

    @contextmanager
    def script(self, name: str) -> Iterator[list[str]]:
        """Run an example beside the block, from its last line to a Ctrl-C; the lines it prints are all there then."""
        log = self.folder / f"{name}.log"
        lines: list[str] = []
        with log.open("w") as file:
            command = [str(self.room.python), f"{name}.py"]
            running = subprocess.Popen(command, cwd=self.folder, env=self.room.environ, stdout=file, stderr=file)
        try:
            eventually(lambda: shown(f"python {name}.py")[-1] in log.read_text() or running.poll() is not None)
            assert running.poll() is None, log.read_text()
            yield lines
            running.send_signal(signal.SIGINT)
            assert running.wait(30) == 0, log.read_text()
        finally:
            running.kill()
            running.wait()
        lines += log.read_text().splitlines()


def install(folder: Path, *names: str) -> Elsewhere:
    """Build wheels, install them into an empty environment, write the examples down beside an empty data folder."""
    wheels = {one.name: build_wheel(one, folder) for one in find_packages(ROOT) if one.name in names}
    room = Room(folder / "room", wheels, ROOT / "requirements" / "run.txt")
    room.install(*map(str, wheels.values()))
    room.environ |= {"XDG_DATA_HOME": str(folder / "data"), "HOME": str(folder), "PYTHONUNBUFFERED": "1"}
    (folder / "project").mkdir()
    for name in ("resize.py", "results.py"):
        (folder / "project" / name).write_text(example(name), encoding="utf-8")
    return Elsewhere(room, wheels, folder / "project")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """Install core and the default broker, nothing else."""
    return install(tmp_path_factory.mktemp("elsewhere"), *NAMES)


def example(name: str) -> str:
    """Return an example as a reader copies it from the README."""
    found = re.search(rf"<!-- example: examples/quickstart/{name} -->\n```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


def shown(command: str) -> list[str]:
    """Return the lines that the README shows below a command."""
    found = re.search(rf"^    \$ {re.escape(command)}\n((?:    (?!\$ ).*\n)+)", README, re.MULTILINE)
    assert found is not None
    return [line.removeprefix("    ") for line in found[1].splitlines()]


def timeless(line: str) -> str:
    """Return a line of a worker's log without what differs from run to run: date, process, version and file."""
    line = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} ", "DATE ", line)
    line = re.sub(r"worker [^ :]+:\d+ ", "worker HOST:PID ", line)
    line = re.sub(r"boost \d+(\.\w+)+ ", "boost VERSION ", line)
    return re.sub(r"\(/[^ ]+/boost/[^ /]+-[0-9a-f]{8}/queue\.db\)", "(FILE)", line)


def test_the_readmes_example_prints_what_the_readme_shows(elsewhere: Elsewhere) -> None:
    """With core and one broker the script pushes, works its jobs off, waits for more, and leaves on Ctrl-C."""
    assert len(example("resize.py").splitlines()) <= 15

    with elsewhere.script("resize") as lines:
        pass

    assert lines == shown("python resize.py")


def test_the_readmes_results_are_what_the_readme_shows(tmp_path: Path) -> None:
    """With the store beside them a script gets its results, and so does the shell while that script works."""
    elsewhere = install(tmp_path, *NAMES, "boost-store-sqlite")

    with elsewhere.script("results") as lines:
        called = elsewhere.boost("call", "results.py", "area", "3", "4", "--wait", "10s")

    assert lines == shown("python results.py")
    assert called.stdout.splitlines() == shown("boost call results.py area 3 4 --wait 10s"), called.stderr


def test_the_readmes_commands_print_what_the_readme_shows(elsewhere: Elsewhere) -> None:
    """A job pushed from the shell waits in the queue, and a worker of the same file runs it."""
    called = elsewhere.boost("call", "resize.py", "resize", "b.png", "300")
    listed = elsewhere.boost("queue", "list", "resize.py")
    worked = elsewhere.boost("worker", "resize.py", "--burst")

    assert (called.returncode, called.stderr) == (0, "")
    (job_id,) = shown("boost call resize.py resize b.png 300")
    assert re.fullmatch("[0-9a-f]{32}", job_id)
    assert re.fullmatch("[0-9a-f]{32}\n", called.stdout)
    assert listed.stdout.splitlines() == shown("boost queue list resize.py"), listed.stderr
    first, *jobs, last = shown("boost worker resize.py --burst")
    assert worked.returncode == 0, worked.stderr
    assert worked.stdout.splitlines() == jobs
    assert [timeless(line) for line in worked.stderr.splitlines()] == [timeless(first), timeless(last)]


def test_the_workers_first_line_says_where_the_queue_is(elsewhere: Elsewhere) -> None:
    """It is a file of the project in the user's data folder."""
    worked = elsewhere.boost("worker", "resize.py", "--burst")

    place = re.search(r"broker sqlite \((.*?)\)", worked.stderr.splitlines()[0])
    assert place is not None
    assert Path(place[1]).is_relative_to(elsewhere.room.environ["XDG_DATA_HOME"])
    assert Path(place[1]).is_file()


def test_results_need_a_store_and_the_error_says_which(elsewhere: Elsewhere) -> None:
    """The README's second example lacks its store where only the queue is installed."""
    done = elsewhere.boost("call", "results.py", "area", "3", "4", "--wait", "10s")

    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == (
        "StoreNotFound: no store named 'sqlite' is installed.\n"
        "  Install it:       pip install boost-store-sqlite\n"
        "  Installed stores: memory\n"
    )


def test_nothing_else_is_installed(elsewhere: Elsewhere) -> None:
    """What came along is what the two declare, and no package of the index took the place of ours."""
    code = "from importlib.metadata import *; print(*sorted(d.metadata['Name'].lower() for d in distributions()))"
    first_party = [name for name in elsewhere.room.run("-c", code).stdout.split() if name.startswith("boost")]
    where = elsewhere.room.run("-c", "import boost_core; print(boost_core.__file__)", cwd=elsewhere.folder).stdout

    assert first_party == sorted(NAMES)
    assert where.startswith(str(elsewhere.room.folder))


@pytest.mark.parametrize("name", NAMES)
def test_a_wheel_carries_licence_types_and_description(elsewhere: Elsewhere, name: str) -> None:
    """The licence's text, the mark for type checkers, the README and the metadata are in it, and no tests."""
    with zipfile.ZipFile(elsewhere.wheels[name]) as wheel:
        files = wheel.namelist()
        metadata = email.message_from_bytes(wheel.read(next(file for file in files if file.endswith("/METADATA"))))
        licence = wheel.read(next(file for file in files if file.endswith("licenses/LICENSE"))).decode()

    assert licence == (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert f"{name.replace('-', '_')}/py.typed" in files
    assert not [file for file in files if "test_" in file]
    assert (metadata["Name"], metadata["License-Expression"], metadata["Requires-Python"]) == (name, "MIT", ">=3.11")
    assert str(metadata.get_payload()).startswith(f"# {name}\n")


def test_every_package_is_bound_by_the_rules_of_types_and_imports() -> None:
    """Strict types and the import rules hold for each package, also for one that is new; green worlds stay in their pools."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    packages = find_packages(ROOT)
    modules = {package.module for package in packages}
    bound = {
        library: {
            module
            for contract in tool["importlinter"]["contracts"]
            for module in contract.get("source_modules", ())
            if library in contract.get("forbidden_modules", ())
        }
        for library in ("gevent", "eventlet")
    }

    assert {str(package.folder.relative_to(ROOT) / "src") for package in packages} <= set(tool["mypy"]["files"])
    assert {"tools", "bench", "examples"} <= set(tool["mypy"]["files"])
    assert set(tool["importlinter"]["root_packages"]) == modules
    assert bound == {library: modules - {f"boost_pool_{library}"} for library in bound}
