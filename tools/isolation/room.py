"""A virtual environment that holds what a test installs into it, and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from isolation.failure import Failure, last_line

_PIN: Final = re.compile(r"^[A-Za-z0-9._-]+==[^\\\n]*", re.MULTILINE)
_FOREIGN: Final = ("PYTHON", "VIRTUAL_ENV", "BOOST_")


class Room:
    """A fresh virtual environment, without even pip, in a folder of its own."""

    def __init__(self, folder: Path, wheels: Mapping[str, Path], pins: Path) -> None:
        """Make it. First-party packages are ``wheels``; the others come from pip's index as ``pins`` says."""
        venv.create(folder, with_pip=False, symlinks=True)
        self.folder = folder
        self.python = folder / "bin" / "python"
        # A constraint that is a URL binds a name to that one file: no package of an index can take its place.
        own = [f"{name} @ {path.as_uri()}" for name, path in wheels.items()]
        self._constraints = folder / "constraints.txt"
        self._constraints.write_text("\n".join([*own, *_PIN.findall(pins.read_text(encoding="utf-8"))]) + "\n")
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        self.environ |= {"PATH": f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"}
        # Compiled at each import: a warning of the compiler is heard by -W error then, not swallowed at installation.
        self.environ |= {"PYTHONDONTWRITEBYTECODE": "1"}

    def install(self, *requirements: str) -> None:
        """Install by pip; raise ``Failure`` with its reason."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-compile"]
        options = ["--no-input", "--disable-pip-version-check", "--constraint", str(self._constraints)]
        done = subprocess.run([*pip, *options, *requirements], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failure(f"pip: {last_line(done.stderr or done.stdout)}", done.stdout + done.stderr)

    def run(self, *arguments: str, **given: Any) -> subprocess.CompletedProcess[str]:
        """Run the room's Python to its end, in the room's folder unless ``cwd`` is given."""
        command = [str(self.python), *arguments]
        settings = {"cwd": self.folder, "env": self.environ, **given}
        return subprocess.run(command, capture_output=True, text=True, check=False, **settings)
