"""What is proven of one package that is installed alone."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sync.packages import Package

from isolation.failure import Failure, last_line
from isolation.room import Room

TOOLS: Final = ("pytest", "pytest-timeout", "pytest-randomly", "hypothesis")
"""What the tests of any package may use without declaring it."""

_PROBE: Final = Path(__file__).with_name("probe.py")
_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) .*", re.MULTILINE)


def prove(package: Package, wheels: Mapping[str, Path], root: Path, folder: Path) -> str:
    """Return what a package's own tests said of its wheel alone; raise ``Failure`` at the first thing wrong."""
    room = Room(folder / "room", wheels, root / "requirements" / "dev.txt")
    room.install(str(wheels[package.name]))
    plugins = dict.fromkeys([f"{package.module}.plugin", *package.plugin_modules()])
    for module in plugins:
        done = room.run("-W", "error", "-c", f"import {module}")
        _expect(done, f"python -W error -c 'import {module}': {last_line(done.stderr)}")
    done = room.run(str(_PROBE), package.name, *plugins)
    _expect(done, "; ".join(done.stdout.splitlines()) or last_line(done.stderr))
    # Only now: pytest brings packages along, and what is there by chance would hide what isn't declared.
    room.install(*TOOLS)
    return _tested(package, room, root, folder)


def _tested(package: Package, room: Room, root: Path, folder: Path) -> str:
    if not (package.folder / "tests").is_dir():
        raise Failure("it has no tests")
    # A copy: beside the original lie the sources, and the wheel is to be tested.
    shutil.copytree(package.folder / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "conftest.py", folder)
    options = ["-c", str(root / "pyproject.toml"), "--rootdir", str(folder), "-p", "no:cacheprovider"]
    done = room.run("-m", "pytest", *options, "tests", cwd=folder)
    found = _FAILED.findall(done.stdout)
    _expect(done, f"{last_line(done.stdout)}{': ' if found else ''}{found[0] if found else ''}")
    return last_line(done.stdout)


def _expect(done: subprocess.CompletedProcess[str], line: str) -> None:
    if done.returncode:
        raise Failure(line, done.stdout + done.stderr)
