"""What ``import boost_core`` costs beside a few modules of the standard library."""

from __future__ import annotations

import subprocess
import sys

from bench.measure import Figure, at_most, seconds

RUNS = 15


def figures() -> list[Figure]:
    """Return the import figure: the time beyond starting Python, over that of the standard modules."""
    values = []
    for _ in range(RUNS):
        bare = seconds(lambda: _python("pass"))
        ours = seconds(lambda: _python("import boost_core")) - bare
        theirs = seconds(lambda: _python("import json, logging, dataclasses")) - bare
        values.append(ours / theirs)
    return [at_most("import boost_core / json, logging, dataclasses", values, 3)]


def _python(text: str) -> None:
    subprocess.run([sys.executable, "-c", text], check=True)
