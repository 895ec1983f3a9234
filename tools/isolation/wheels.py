"""Wheels of the packages, built as they are published: the source distribution first, the wheel from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sync.packages import Package

from isolation.failure import Failure, last_line


def build_wheel(package: Package, folder: Path) -> Path:
    """Build a package below ``folder`` and return its wheel; raise ``Failure`` where it can't be built."""
    into = folder / package.name
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(into), str(package.folder)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # uv_build is a program there
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
    wheels = list(into.glob("*.whl"))
    if done.returncode or not wheels:
        raise Failure(f"no wheel: {last_line(done.stderr or done.stdout)}", done.stdout + done.stderr)
    return wheels[0]
