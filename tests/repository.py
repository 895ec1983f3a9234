"""Copies of this repository, for tests that plant faults in it, and its tools run as they are by hand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FOLDERS = ("core", "plugins", "tools", "requirements", "docs", "examples")
_FILES = ("pyproject.toml", "conftest.py", "README.md", "LICENSE", "Makefile")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*_cache", "*.egg-info", "dist")


class Repository:
    """A copy of the repository in a folder of a test."""

    def __init__(self, folder: Path, *, plugins: bool = True) -> None:
        """Copy what tools read; ``plugins=False`` leaves the plugins out."""
        self.folder = folder
        for name in _FOLDERS:
            if plugins or name != "plugins":
                shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=_LEFT_OUT)
        for name in _FILES:
            shutil.copy(ROOT / name, folder / name)

    def write(self, name: str, text: str) -> Path:
        """Write a file and return its path."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def change(self, name: str, old: str, new: str) -> None:
        """Replace what stands once in a file."""
        path = self.folder / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in {name}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def tool(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the copy's tools to its end, from another folder."""
        command = [sys.executable, str(self.folder / "tools" / name), *arguments]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("BOOST_")}
        return subprocess.run(
            command, cwd=self.folder.parent, env=kept, capture_output=True, text=True, timeout=280, check=False
        )
